"""Many calls at once, and the counts of their outcomes."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TypeVar

import grpc
import numpy as np

from coalmine.telemetry import VARIANT_KEY
from coalmine_client.client import Answer

Request = TypeVar("Request")

# One call to the model: returns its answer, or raises grpc.aio.AioRpcError.
Call = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True)
class CallTally:
    """What a bulk run counted. Latencies are of answered calls."""

    answered: Counter[tuple[str, str]] = field(default_factory=Counter)  # (variant, version)
    failed: Counter[str] = field(default_factory=Counter)  # variant
    by_status: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    first_error: str = ""
    took_s: float = 0.0

    @property
    def calls(self) -> int:
        """How many calls ended."""
        return sum(self.by_status.values())

    @property
    def failures(self) -> int:
        """How many calls ended with an error."""
        return self.calls - self.by_status["OK"]

    def percentile_ms(self, percentile: float) -> float:
        """Return a percentile of the latencies; NaN without any."""
        if not self.latencies_ms:
            return float("nan")
        return float(np.percentile(self.latencies_ms, percentile))

    def add_answer(self, answer: Answer, ms: float) -> None:
        """Count a call that was answered."""
        self.answered[answer.variant, answer.model_version] += 1
        self.by_status["OK"] += 1
        self.latencies_ms.append(ms)

    def add_error(self, error: grpc.aio.AioRpcError) -> None:
        """Count a call that failed."""
        trailing = dict(error.trailing_metadata() or ())
        self.failed[str(trailing.get(VARIANT_KEY, ""))] += 1
        self.by_status[error.code().name] += 1
        self.first_error = self.first_error or f"{error.details()} ({error.code().name})"


async def run_bulk(
    call: Call[Request],
    requests: Sequence[Request],
    *,
    repeat: int,
    concurrency: int,
    progress: Callable[[], None],
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> CallTally:
    """Return the counts of `repeat` calls, with `concurrency` of them under way at any time.

    The calls send `requests` in turn, and begin again after the last one. Errors are counted.
    """
    tally = CallTally()
    todo = islice(cycle(requests), repeat)
    began_ns = now_ns()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(concurrency, repeat)):
            tasks.create_task(_send_requests(call, todo, tally, progress, now_ns))
    tally.took_s = (now_ns() - began_ns) / 1e9
    return tally


async def _send_requests(
    call: Call[Request],
    todo: Iterator[Request],
    tally: CallTally,
    progress: Callable[[], None],
    now_ns: Callable[[], int],
) -> None:
    for request in todo:
        began_ns = now_ns()
        try:
            answer = await call(request)
        except grpc.aio.AioRpcError as error:
            tally.add_error(error)
        else:
            tally.add_answer(answer, (now_ns() - began_ns) / 1e6)
        progress()
