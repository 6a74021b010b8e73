"""Streams of tritonclient's asyncio client. `ADDRESS`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import tritonclient.grpc.aio as triton

from tests.conformance.callers.asking import Output, error_of, logits, pixels, say


async def scenario(client: triton.InferenceServerClient) -> Output:
    return {
        "in_order": await in_order(client),
        "in_turn": await in_turn(client),
        "errors": await errors(client),
        "cancelled": await cancelled(client),
        "after": await in_order(client),
    }


def asked(model: str, value: float, name: str) -> Output:
    return {"model_name": model, "inputs": pixels(value=value), "request_id": name}


async def in_order(client: triton.InferenceServerClient) -> list[Any]:
    async def requests() -> AsyncIterator[Output]:
        yield asked("slow", 1e5, "slow")
        for each in range(100):
            yield asked("raises", float(each), f"r-{each}")

    answers = client.stream_infer(requests())
    return [[result.get_response().id, logits(result)[0][0]] async for result, _ in answers]


async def in_turn(client: triton.InferenceServerClient) -> list[Any]:
    """Return the values of a conversation: each request is made of the answer before it."""
    last: asyncio.Queue[float] = asyncio.Queue()
    last.put_nowait(1.0)

    async def requests() -> AsyncIterator[Output]:
        for each in range(5):
            yield asked("raises", 2 * await last.get(), str(each))

    values = []
    async for result, _ in client.stream_infer(requests()):
        values.append(logits(result)[0][0])
        last.put_nowait(values[-1])
    return values


async def errors(client: triton.InferenceServerClient) -> list[Any]:
    async def requests() -> AsyncIterator[Output]:
        yield asked("digits", 1.0, "good")
        yield asked("nobody", 1.0, "nobody")
        yield asked("digits", 1.0, "good again")

    return [
        error_of(error) if error else result.get_response().id
        async for result, error in client.stream_infer(requests())
    ]


async def cancelled(client: triton.InferenceServerClient) -> list[Any]:
    """Return the answers that came before the stream was cancelled, and what came then."""

    async def requests() -> AsyncIterator[Output]:
        yield asked("digits", 1.0, "quick")
        yield asked("slow", 3e5, "slow")
        await asyncio.Event().wait()

    answers = client.stream_infer(requests())
    output: list[Any] = []
    try:
        async for result, _ in answers:
            output.append(result.get_response().id)
            answers.cancel()
    except asyncio.CancelledError:
        output.append("CANCELLED")
    return output


async def main(address: str) -> None:
    async with triton.InferenceServerClient(address) as client:
        say(await scenario(client))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
