"""A backend that gives back what it got, and fails as told. `python -m tests.conformance.echo`.

Metadata `x-sent-…` comes back as `x-got-…`, before the answer and after it. `x-do: hang` is never
answered, `x-do: refuse` is refused. It says its address in a line, and ends where its input does.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc

from tests.doubles.oip_backend import INFER, Answer, Metadata, OipBackend, Script, Seen, echo

SEEN = "echo.Echo/Seen"
REFUSED = "so nicht: 100 % falsch, grüße"
# What `grpc-status-details-bin` holds is passed on as it is, whatever it may be.
DETAILS = bytes(range(256))

_ROOT = Path(__file__).parents[2]


def script(backend: OipBackend) -> Script:
    def answer(seen: Seen) -> Answer:
        if seen.method == SEEN:
            return _count(backend)
        match seen.values("x-do"):
            case ["hang"]:
                return Answer(until=asyncio.Event())
            case ["refuse"]:
                return _refusal(seen)
        return replace(echo(seen), initial=_got(seen), trailing=(*_got(seen), *_facts(seen)))

    return answer


def _count(backend: OipBackend) -> Answer:
    """Answer how many requests came, and how many callers went before the answer."""
    came = sum(each.method == INFER for each in backend.seen)
    return Answer(json.dumps({"came": came, "cancelled": backend.cancelled}).encode())


def _refusal(seen: Seen) -> Answer:
    trailing = (*_got(seen), ("grpc-status-details-bin", DETAILS))
    return Answer(code=grpc.StatusCode.FAILED_PRECONDITION, message=REFUSED, trailing=trailing)


def _got(seen: Seen) -> Metadata:
    return [
        (key.replace("x-sent-", "x-got-"), value)
        for key, value in seen.metadata
        if key.startswith("x-sent-")
    ]


def _facts(seen: Seen) -> Metadata:
    """Return what no request carries: how many pairs came, and how much time was left."""
    left_s = seen.time_remaining_s
    left = "" if left_s is None else str(round(left_s * 1_000))
    return [("x-pairs", str(len(_got(seen)))), ("x-left-ms", left)]


@contextmanager
def echoing() -> Iterator[str]:
    """Run it until the block ends; yield its address."""
    command = [sys.executable, "-m", "tests.conformance.echo"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def main() -> None:
    async with OipBackend() as backend:
        backend.script = script(backend)
        print(backend.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
