"""Statistics as JSON, from tritonclient's asyncio client. `aio ADDRESS`."""

from tests.conformance.callers.asking import Client, Output, each, pixels, run


async def scenario(client: Client) -> Output:
    await client.ask("infer", "digits", pixels(), model_version="1")
    return await each(
        version=client.ask("get_inference_statistics", "digits", "1", as_json=True),
        unknown=client.failure("get_inference_statistics", "digits", "9"),
    )


if __name__ == "__main__":
    run(scenario)
