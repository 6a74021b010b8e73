"""Steady load, by a real gRPC client in a process of its own, and what became of every call.

`python -m tests.soak.load ADDRESS --callers N --rate R` calls until its standard input closes. For
each line that it reads it prints one: for "ports" those that each channel is connected from, for a
kill or nothing a tally of the calls that ended since.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc

from coalmine.telemetry import ORIGIN_KEY
from tests.soak.connections import Traced
from tests.soak.questions import Question, questions
from tests.soak.tally import Failure, Kill, Tally, percentile

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))
DEADLINE_S = 2.0
CONNECTIONS = 8
PORTS = "ports"
VISITOR = CONNECTIONS  # the number of a channel of one call

_THINKS_S = 0.01  # a closed-loop caller, between an answer and its next question
_VISITS_S = 0.25
_FAILURES_MAX = 10_000
_TEXT_CHARS_MAX = 160


@dataclass
class Seen:
    """The calls that ended."""

    # Channel, began, ended.
    times: list[tuple[int, float, float]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    variants: Counter[str] = field(default_factory=Counter)

    def failed(self, failure: Failure) -> None:
        if len(self.failures) < _FAILURES_MAX:
            self.failures.append(failure)

    def tally(self, kill: Kill | None) -> Tally:
        took = sorted((ended - began) * 1e3 for _, began, ended in self.times)
        return Tally(
            requests=len(self.times),
            failures=self.failures,
            in_flight=sum(kill.hit(*each) for each in self.times) if kill else 0,
            p50_ms=percentile(took, 50),
            p99_ms=percentile(took, 99),
            variants=dict(self.variants),
        )


@dataclass(frozen=True)
class Line:
    """A channel, and its number."""

    number: int
    traced: Traced

    @property
    def channel(self) -> grpc.aio.Channel:
        return self.traced.channel


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
        lines = [self._line(number) for number in range(CONNECTIONS)]
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                tasks.create_task(self._closed_loop(lines[number % CONNECTIONS]))
            tasks.create_task(self._open_loop(lines, rate, tasks))
            tasks.create_task(self._visits())
            await self._tell(lines)
            self._is_over = True
        for line in lines:
            await line.channel.close()

    async def _tell(self, lines: list[Line]) -> None:
        while asked := (await asyncio.to_thread(sys.stdin.readline)):
            print(json.dumps(self._told(asked.strip(), lines)), flush=True)

    def _told(self, asked: str, lines: list[Line]) -> object:
        if asked == PORTS:
            return [line.traced.ports() for line in lines]
        seen, self._seen = self._seen, Seen()
        return seen.tally(Kill.of(json.loads(asked)) if asked else None).said()

    def _line(self, number: int) -> Line:
        return Line(number, Traced(self._address, OPTIONS))

    async def _closed_loop(self, line: Line) -> None:
        while not self._is_over:
            await self._call(line)
            await asyncio.sleep(_THINKS_S)

    async def _open_loop(self, lines: list[Line], rate: int, tasks: asyncio.TaskGroup) -> None:
        due_s = time.monotonic()
        while not self._is_over:
            tasks.create_task(self._call(lines[self._asked % CONNECTIONS]))
            due_s += 1 / rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _visits(self) -> None:
        while not self._is_over:
            line = self._line(VISITOR)
            async with line.channel:
                await self._call(line)
            await asyncio.sleep(_VISITS_S)

    async def _call(self, line: Line) -> None:
        question = self._questions[self._asked % len(self._questions)]
        self._asked += 1
        began_s = time.monotonic()
        try:
            await self._answered(question, line, began_s)
        except grpc.aio.AioRpcError as error:
            self._seen.failed(_failure(error, line, began_s))
        finally:
            self._seen.times.append((line.number, began_s, time.monotonic()))

    async def _answered(self, question: Question, line: Line, began_s: float) -> None:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = line.channel.unary_unary(METHOD)
        call = ask(question.body, timeout=DEADLINE_S)
        answer = await call
        trailing = {key: str(value) for key, value in await call.trailing_metadata() or ()}
        variant = trailing.get("x-coalmine-variant", "")
        self._seen.variants[variant] += 1
        if not question.is_answered_by(answer, variant):
            by = f"by {variant or 'nobody'}"
            wrong = Failure("WRONG_NUMBERS", by, began_s, time.monotonic(), line.number)
            self._seen.failed(wrong)


def _failure(error: grpc.aio.AioRpcError, line: Line, began_s: float) -> Failure:
    text = (error.details() or "")[:_TEXT_CHARS_MAX]
    origin = str(dict(error.trailing_metadata() or ()).get(ORIGIN_KEY, ""))
    return Failure(error.code().name, text, began_s, time.monotonic(), line.number, origin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True)
    asked = parser.parse_args()
    asyncio.run(Load(asked.address).run(asked.callers, asked.rate))


if __name__ == "__main__":
    main()
