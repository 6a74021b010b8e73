"""Liveness, readiness, metadata and config, as JSON and as messages. `KIND ADDRESS`."""

from tests.conformance.callers.asking import Client, Output, each, run


async def scenario(client: Client) -> Output:
    return {**await health(client), **await as_json(client), **await as_messages(client)}


async def health(client: Client) -> Output:
    return await each(
        live=client.ask("is_server_live", client_timeout=30),
        ready=client.ask("is_server_ready", headers={"x-any": "thing"}),
        model_ready=client.ask("is_model_ready", "digits"),
        version_ready=client.ask("is_model_ready", "digits", "1"),
        label_ready=client.ask("is_model_ready", "digits", "canary"),
        unknown_version_ready=client.ask("is_model_ready", "digits", "9"),
        unknown_ready=client.ask("is_model_ready", "nobody"),
    )


async def as_json(client: Client) -> Output:
    return await each(
        model=client.ask("get_model_metadata", "digits", as_json=True),
        version=client.ask("get_model_metadata", "digits", "1", as_json=True),
        sequences=client.ask("get_model_metadata", "sequences", as_json=True),
        words=client.ask("get_model_metadata", "words", as_json=True),
        unknown_metadata=client.failure("get_model_metadata", "nobody"),
        config=client.ask("get_model_config", "digits", as_json=True),
        words_config=client.ask("get_model_config", "words", as_json=True),
        unknown_config=client.failure("get_model_config", "digits", "9"),
    )


async def as_messages(client: Client) -> Output:
    metadata = await client.ask("get_model_metadata", "digits")
    config = (await client.ask("get_model_config", "identity")).config
    return {
        "platform": metadata.platform,
        "versions": list(metadata.versions),
        "max_batch_size": config.max_batch_size,
        "inputs": {each.name: each.data_type for each in config.input},
    }


if __name__ == "__main__":
    run(scenario)
