"""What a server says of itself and of all its models, as JSON and as messages. `KIND ADDRESS`."""

from tests.conformance.callers.asking import Client, Output, each, run


async def scenario(client: Client) -> Output:
    return await each(
        server=client.ask("get_server_metadata", as_json=True),
        server_name=server_name(client),
        index=client.ask("get_model_repository_index", as_json=True),
        index_states=index_states(client),
    )


async def server_name(client: Client) -> str:
    name: str = (await client.ask("get_server_metadata")).name
    return name


async def index_states(client: Client) -> Output:
    index = await client.ask("get_model_repository_index")
    return {f"{each.name} {each.version}": each.state for each in index.models}


if __name__ == "__main__":
    run(scenario)
