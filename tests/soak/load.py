"""Steady load, by a real gRPC client in a process of its own, and what became of every call.

`python -m tests.soak.load ADDRESS --callers N --rate R` calls until its standard input closes. For
each line that it reads, a moment or nothing, it prints a tally of the calls that ended since.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc

from tests.soak.questions import Question, questions
from tests.soak.tally import Failure, Tally, overlaps, percentile

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))
DEADLINE_S = 2.0
CONNECTIONS = 8

_THINKS_S = 0.01  # a closed-loop caller, between an answer and its next question
_VISITS_S = 0.25
_FAILURES_MAX = 10_000
_TEXT_CHARS_MAX = 160


@dataclass
class Seen:
    """The calls that ended."""

    times: list[tuple[float, float]] = field(default_factory=list)  # began, ended
    failures: list[Failure] = field(default_factory=list)
    variants: Counter[str] = field(default_factory=Counter)

    def failed(self, code: str, text: str, began_s: float) -> None:
        if len(self.failures) < _FAILURES_MAX:
            short = text[:_TEXT_CHARS_MAX]
            self.failures.append(Failure(code, short, began_s, time.monotonic()))

    def tally(self, at_s: float) -> Tally:
        took = sorted((ended - began) * 1e3 for began, ended in self.times)
        return Tally(
            requests=len(self.times),
            failures=self.failures,
            in_flight=sum(overlaps(*each, at_s) for each in self.times),
            p50_ms=percentile(took, 50),
            p99_ms=percentile(took, 99),
            variants=dict(self.variants),
        )


class Load:
    """Callers who wait for answers, calls at a fixed rate, and visitors with a new connection."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._questions = questions()
        self._asked = 0
        self._is_over = False
        self._seen = Seen()

    async def run(self, callers: int, rate: int) -> None:
        """Call until standard input closes."""
        channels = [self._channel() for _ in range(CONNECTIONS)]
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                tasks.create_task(self._closed_loop(channels[number % CONNECTIONS]))
            tasks.create_task(self._open_loop(channels, rate, tasks))
            tasks.create_task(self._visits())
            await self._tell()
            self._is_over = True
        for channel in channels:
            await channel.close()

    async def _tell(self) -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            seen, self._seen = self._seen, Seen()
            print(json.dumps(seen.tally(float(line.strip() or "nan")).said()), flush=True)

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._address, options=OPTIONS)

    async def _closed_loop(self, channel: grpc.aio.Channel) -> None:
        while not self._is_over:
            await self._call(channel)
            await asyncio.sleep(_THINKS_S)

    async def _open_loop(
        self, channels: list[grpc.aio.Channel], rate: int, tasks: asyncio.TaskGroup
    ) -> None:
        due_s = time.monotonic()
        while not self._is_over:
            tasks.create_task(self._call(channels[self._asked % CONNECTIONS]))
            due_s += 1 / rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _visits(self) -> None:
        while not self._is_over:
            async with self._channel() as channel:
                await self._call(channel)
            await asyncio.sleep(_VISITS_S)

    async def _call(self, channel: grpc.aio.Channel) -> None:
        question = self._questions[self._asked % len(self._questions)]
        self._asked += 1
        began_s = time.monotonic()
        try:
            await self._answered(question, channel, began_s)
        except grpc.aio.AioRpcError as error:
            self._seen.failed(error.code().name, error.details() or "", began_s)
        finally:
            self._seen.times.append((began_s, time.monotonic()))

    async def _answered(
        self, question: Question, channel: grpc.aio.Channel, began_s: float
    ) -> None:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        call = ask(question.body, timeout=DEADLINE_S)
        answer = await call
        trailing = {key: str(value) for key, value in await call.trailing_metadata() or ()}
        variant = trailing.get("x-coalmine-variant", "")
        self._seen.variants[variant] += 1
        if not question.is_answered_by(answer, variant):
            self._seen.failed("WRONG_NUMBERS", f"by {variant or 'nobody'}", began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True)
    asked = parser.parse_args()
    asyncio.run(Load(asked.address).run(asked.callers, asked.rate))


if __name__ == "__main__":
    main()
