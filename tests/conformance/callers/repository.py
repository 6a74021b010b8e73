"""Load, unload and index, on a server that has to allow it. `KIND ADDRESS`."""

from typing import Any

from tests.conformance.callers.asking import Client, Output, each, pixels, run


async def scenario(client: Client) -> Output:
    return await each(
        before=seen(client),
        unloaded=changed(client, "unload_model", "counted"),
        unloaded_again=changed(client, "unload_model", "counted", unload_dependents=True),
        loaded=changed(client, "load_model", "counted"),
        loaded_again=changed(client, "load_model", "counted"),
        unknown_loaded=client.failure("load_model", "nobody"),
        unknown_unloaded=client.failure("unload_model", "nobody"),
        outside=client.failure("load_model", "../counted"),
        with_config=client.failure("load_model", "counted", config='{"max_batch_size": 1}'),
        with_files=client.failure(
            "load_model", "counted", config="{}", files={"file:1/model.pt": b"x"}
        ),
        after=seen(client),
    )


async def changed(client: Client, method: str, *arguments: Any, **named: Any) -> Output:
    """Return what is seen of the model `counted` after a change."""
    await client.ask(method, *arguments, **named)
    return await seen(client)


async def seen(client: Client) -> Output:
    index = await client.ask("get_model_repository_index")
    rows = [[each.state, each.reason] for each in index.models if each.name == "counted"]
    return {
        "index": rows,
        "ready": await client.ask("is_model_ready", "counted"),
        "others_ready": await client.ask("is_model_ready", "digits"),
        "infer": (await client.failure("infer", "counted", pixels()))["status"],
    }


if __name__ == "__main__":
    run(scenario)
