"""How the callers call: tritonclient alone, its sync and its asyncio client by the same words."""

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import tritonclient.grpc as sync
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

Output = dict[str, Any]
KINDS: dict[str, Any] = {"sync": sync, "aio": aio}


class Client:
    """Either of tritonclient's clients; every method is named and awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        answer = getattr(self._client, method)(*arguments, **named)
        return await answer if inspect.isawaitable(answer) else answer

    async def failure(self, method: str, *arguments: Any, **named: Any) -> Output:
        """Return the status and message of a call that has to fail."""
        try:
            answer = await self.ask(method, *arguments, **named)
        except InferenceServerException as error:
            return error_of(error)
        return {"status": None, "answer": str(answer)}


def run(scenario: Callable[[Client], Awaitable[Output]], **options: Any) -> None:
    """`KIND ADDRESS`: print as JSON what `scenario` saw with that kind of client."""
    kind, address = sys.argv[1:3]
    say(asyncio.run(_with_client(scenario, KINDS[kind], address, options)))


async def _with_client(
    scenario: Callable[[Client], Awaitable[Output]], module: Any, address: str, options: Output
) -> Output:
    client = Client(module.InferenceServerClient(address, **options))
    try:
        return await scenario(client)
    finally:
        await client.ask("close")


def say(output: Output) -> None:
    ours = [name for name in sys.modules if name.partition(".")[0].startswith("coalmine")]
    assert not ours, f"a foreign client alone is to be seen here, not {ours}"
    print(json.dumps(output))


def error_of(error: InferenceServerException) -> Output:
    return {"status": error.status(), "message": error.message()}


async def each(**sections: Awaitable[Any]) -> Output:
    """Return what every section saw; one that is refused leaves the others as they are."""
    return {name: await _or_refusal(section) for name, section in sections.items()}


async def _or_refusal(section: Awaitable[Any]) -> Any:
    try:
        return await section
    except InferenceServerException as error:
        return error_of(error)


def tensor(name: str, array: Any, datatype: str) -> sync.InferInput:
    made = sync.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def pixels(rows: int = 1, value: float = 1.0) -> list[sync.InferInput]:
    """Return the inputs of `digits`, `slow`, `raises` and `counted`."""
    return [tensor("pixels", np.full((rows, 64), value, np.float32), "FP32")]


def tokens(*values: int) -> list[sync.InferInput]:
    """Return the inputs of `sequences`."""
    return [tensor("tokens", np.array([values], np.int64), "INT64")]


def logits(answer: sync.InferResult) -> Any:
    return answer.as_numpy("logits").tolist()
