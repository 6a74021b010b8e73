"""Sends held-out images through the router: `python -m coalmine_demo.traffic --help`."""

import argparse
import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from coalmine.clock import Clock, SystemClock
from coalmine.errors import InvalidTensor, StartError
from coalmine.process.exit_codes import EXIT_FAILED
from coalmine.process.lifecycle import Stop, run
from coalmine.telemetry import REVISION_KEY, VARIANT_KEY
from coalmine_client.client import Answer, AsyncClient
from coalmine_demo.account import OK, TrafficExchange
from coalmine_demo.heldout import PIXELS_FILE

MODEL: Final = "digits"
IN_FLIGHT_MAX: Final = 32
TIMEOUT_S: Final = 10.0
MALFORMED: Final = "MALFORMED"

_NO_LOGITS: Final[NDArray[Any]] = np.empty(0, dtype=np.float32)


class Asks(Protocol):
    """What the traffic needs of a client."""

    async def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any]], *, timeout_s: float
    ) -> Answer:
        """Return the answer. Raises grpc.aio.AioRpcError, InvalidTensor."""
        ...


class Traffic:
    """Sends the images in turn, at a steady rate. Each exchange goes to `record`."""

    def __init__(
        self,
        client: Asks,
        pixels: NDArray[Any],
        record: Callable[[TrafficExchange], None],
        *,
        rate_per_s: float,
        clock: Clock,
    ) -> None:
        self._client = client
        self._pixels = pixels
        self._record = record
        self._interval_ns = round(1e9 / rate_per_s)
        self._clock = clock
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def send_until(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; return when the last answer is there.

        While IN_FLIGHT_MAX requests are unanswered the next one waits, so that a slow router is
        not flooded.
        """
        async with asyncio.TaskGroup() as sending:
            due_ns = self._clock.monotonic_ns()
            for image in itertools.cycle(range(len(self._pixels))):
                await self._in_flight.acquire()
                if stop.is_set():
                    return
                sending.create_task(self._send_image(image))
                due_ns = max(due_ns + self._interval_ns, self._clock.monotonic_ns())
                await _sleep_until(stop, (due_ns - self._clock.monotonic_ns()) / 1e9)

    async def _send_image(self, image: int) -> None:
        started_ns = self._clock.monotonic_ns()
        try:
            status, variant, revision, logits, label = await self._infer_image(image)
        finally:
            self._in_flight.release()
        latency_ms = (self._clock.monotonic_ns() - started_ns) / 1e6
        self._record(TrafficExchange(image, status, variant, revision, latency_ms, logits, label))

    async def _infer_image(self, image: int) -> tuple[str, str, int, NDArray[Any], int]:
        try:
            answer = await self._client.infer(
                MODEL, {"pixels": self._pixels[image : image + 1]}, timeout_s=TIMEOUT_S
            )
            logits, label = answer.outputs["logits"][0], int(answer.outputs["label"].ravel()[0])
        except grpc.aio.AioRpcError as error:
            said = dict(error.trailing_metadata())
            revision = int(said.get(REVISION_KEY, 0))
            return error.code().name, str(said.get(VARIANT_KEY, "")), revision, _NO_LOGITS, -1
        except (InvalidTensor, KeyError, IndexError):
            return MALFORMED, "", 0, _NO_LOGITS, -1
        return OK, answer.variant, answer.revision, logits, label


async def _sleep_until(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


# ---------------------------------------------------------------- as a program


class _SentTally:
    def __init__(self, count: int) -> None:
        self.seen: Counter[str] = Counter()
        self.full = asyncio.Event()
        self._count = count

    def record(self, exchange: TrafficExchange) -> None:
        who = exchange.variant or "nobody"
        self.seen[who if exchange.status == OK else f"{who} {exchange.status}"] += 1
        if self._count and self.seen.total() >= self._count:
            self.full.set()

    def summary_line(self) -> str:
        parts = ", ".join(f"{who} {count}" for who, count in sorted(self.seen.items()))
        return f"{self.seen.total()} requests: {parts or 'none'}"

    @property
    def all_answered(self) -> bool:
        return not any(" " in who for who in self.seen)


async def _send_all(asked: argparse.Namespace, stop: Stop, tally: _SentTally) -> None:
    pixels = _load_pixels(asked.data / PIXELS_FILE)
    clock = SystemClock()
    async with AsyncClient(asked.target) as client, asyncio.TaskGroup() as group:
        traffic = Traffic(client, pixels, tally.record, rate_per_s=asked.rate, clock=clock)
        watching = group.create_task(_pass_on_stop(stop, tally.full))
        telling = group.create_task(_print_tallies(tally, asked.every))
        await traffic.send_until(tally.full)
        telling.cancel()
        watching.cancel()


def _load_pixels(file: Path) -> NDArray[Any]:
    try:
        pixels: NDArray[Any] = np.load(file)
    except (OSError, ValueError) as error:
        raise StartError(f"{file}: {error}") from None
    return pixels


async def _pass_on_stop(stop: Stop, full: asyncio.Event) -> None:
    await stop.wait()
    full.set()


async def _print_tallies(tally: _SentTally, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        _print_line(tally.summary_line())


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parse_arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the program, read. Exits where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m coalmine_demo.traffic",
        description="Send the held-out digits to a router, over and over, until stopped.",
    )
    parser.add_argument("--target", default="127.0.0.1:9001", help="the router's data address")
    parser.add_argument("--data", type=Path, required=True, help="folder that training wrote")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: never")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two lines")
    return parser.parse_args(given)


def main() -> int:
    """Send until stopped; return 1 where `--count` requests were not all answered."""
    asked = parse_arguments(sys.argv[1:])
    tallies: list[_SentTally] = []

    async def send_traffic(stop: Stop) -> None:
        tallies.append(_SentTally(asked.count))
        await _send_all(asked, stop, tallies[0])

    code = run(send_traffic)
    for tally in tallies:
        _print_line(tally.summary_line())
        if asked.count and not tally.all_answered:
            return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
