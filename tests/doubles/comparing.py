"""Jobs to compare that are cheap to make, and processes that a test scripts.

What is compared is a word: real processes import this module as well, so it stays light.
"""

import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coalmine.clock import Clock
from coalmine_router.observer.comparison.compare_worker import JobAnswer
from coalmine_router.observer.comparison.comparer import Comparer, ComparerLimits
from coalmine_router.observer.comparison.worker_process import CompareWorker, WorkerLost
from tests.doubles.clock import HandClock
from tests.doubles.running import running

Pool = Comparer["Words", str]


@dataclass(frozen=True)
class Words:
    """A job: what to do with a word, and bytes that make it as large as is wanted."""

    word: str
    body: bytes = b""

    @property
    def size_bytes(self) -> int:
        return len(self.body)


def words(word: str, size_bytes: int = 8) -> Words:
    return Words(word, b"x" * size_bytes)


def run(job: Words) -> str:
    """Return the word in capitals; some words have another effect."""
    if job.word == "fail":
        raise ValueError("a rule that fails")
    if job.word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.word == "print":
        print("printed by a rule", flush=True)
    while job.word == "hang":
        pass
    if job.word == "pid":
        return str(os.getpid())
    return job.word.upper()


class ScriptedWorker:
    """It answers a batch when `go` is set, or is lost where the script says so."""

    def __init__(self, *, losing: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.losing = losing
        self.is_up = True

    def ask(self, batch: Sequence[Words]) -> list[JobAnswer]:
        self.batches.append([each.word for each in batch])
        assert self.go.wait(10)
        if self.losing or not self.is_up:
            raise WorkerLost("it was killed")
        return [(run(each), "") for each in batch]

    def end(self) -> None:
        self.is_up = False
        self.go.set()


@dataclass
class Workers:
    """Makes workers, one after the other, as `make` says."""

    make: Callable[[], ScriptedWorker] = ScriptedWorker
    made: list[ScriptedWorker] = field(default_factory=list)

    def start(self) -> CompareWorker:
        self.made.append(self.make())
        return self.made[-1]

    @property
    def up(self) -> int:
        return sum(each.is_up for each in self.made)


@asynccontextmanager
async def comparing(
    start: Callable[[], CompareWorker],
    *,
    clock: Clock | None = None,
    limits: ComparerLimits | None = None,
    processes_max: int = 2,
    run: Callable[[Words], str] = run,
) -> AsyncIterator[Pool]:
    """Run a pool until the block ends."""
    pool: Pool = Comparer(
        run=run,
        start=start,
        clock=clock or HandClock(),
        chance=random.Random(7).random,
        processes_max=processes_max,
        limits=limits,
    )
    async with running(pool.run()):
        yield pool
