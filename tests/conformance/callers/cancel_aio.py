"""Calls of tritonclient's asyncio client as tasks, of which some are cancelled. `ADDRESS`."""

import asyncio
import sys
from typing import Any

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tests.conformance.callers.asking import Output, error_of, logits, pixels, say
from tests.conformance.callers.cancel import LONG


class Calls:
    """Calls in flight by name."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def begin(self, name: str, model: str, value: float, **named: Any) -> asyncio.Task[Any]:
        call = self._client.infer(model, pixels(value=value), request_id=name, **named)
        self._tasks[name] = asyncio.create_task(call)
        return self._tasks[name]

    async def ended(self) -> Output:
        tasks, self._tasks = self._tasks, {}
        return {name: await _ended(task) for name, task in tasks.items()}


async def _ended(task: asyncio.Task[Any]) -> Any:
    try:
        result = await task
    except asyncio.CancelledError:
        return {"status": "StatusCode.CANCELLED"}
    except InferenceServerException as error:
        return error_of(error)
    return [result.get_response().id, logits(result)[0][0]]


async def arrived(client: triton.InferenceServerClient) -> None:
    """Return when all that was sent has come to the server: what is sent later is answered."""
    await asyncio.create_task(client.infer("digits", pixels()))  # begun after those before it


async def scenario(client: triton.InferenceServerClient) -> Output:
    calls = Calls(client)
    await arrived(client)
    calls.begin("begun", "slow", LONG)
    await arrived(client)
    waiting = calls.begin("waiting", "slow", 3.0)
    calls.begin("neighbour", "slow", 2.0)
    calls.begin("out_of_time", "slow", 2.0, timeout=1_000)
    await arrived(client)
    waiting.cancel()
    output = await calls.ended()
    running = calls.begin("running", "slow", LONG)
    await arrived(client)
    calls.begin("behind", "slow", 5.0)
    running.cancel()
    output.update(await calls.ended())
    for each in range(20):
        calls.begin(f"many-{each}", "raises", float(each))
    return {**output, "many": await calls.ended()}


async def main(address: str) -> None:
    async with triton.InferenceServerClient(address) as client:
        say(await scenario(client))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
