"""The server's outside world for tests: time that moves when told, workers, programs, runtimes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import Array
from coalmine_server.batching.burst import Burst
from coalmine_server.runtime.execution import BatchRun, Result
from coalmine_server.runtime.program import Program
from coalmine_server.signature import Arrays, CheckedRequest, Signature
from tests.doubles.clock import HandClock

MS = 1_000_000


@dataclass(eq=False)
class _Timer:
    when_ns: int
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeTime(HandClock):
    """A clock, and the timers on it."""

    def __init__(self, now_ns: int = 1_000 * MS, *, step_ns: int = 0) -> None:
        super().__init__(now_ns, epoch_ns=1_700_000_000_000_000_000, step_ns=step_ns)
        self._timers: list[_Timer] = []

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(when_ns, callback)
        self._timers.append(timer)
        return timer

    @property
    def is_silent(self) -> bool:
        """Whether no timer will go off any more."""
        return all(each.is_cancelled for each in self._timers)

    def advance(self, by_ns: int) -> None:
        """Let time pass, and everything due in it happen in order."""
        until_ns = self.now_ns + by_ns
        while due := self._due(until_ns):
            self._timers.remove(due)
            self.now_ns = max(self.now_ns, due.when_ns)
            due.callback()
        self.now_ns = until_ns

    def _due(self, until_ns: int) -> _Timer | None:
        self._timers = [each for each in self._timers if not each.is_cancelled]
        due = [each for each in self._timers if each.when_ns <= until_ns]
        return min(due, key=lambda each: each.when_ns, default=None)


@dataclass
class FakeWorker:
    """Holds what it is given until the test finishes it; tells of each batch, or of all at once.

    One that `is_late` begins a burst only when it is woken.
    """

    time: FakeTime
    tells_each: bool = True
    is_late: bool = False
    running: Sequence[CheckedRequest] | None = None
    batches: list[Sequence[CheckedRequest]] = field(default_factory=list)
    _burst: Burst | None = None
    _notify: Callable[[bool], object] = lambda _: None
    _started_ns: int = 0

    def submit(self, burst: Burst, notify_progress: Callable[[bool], object]) -> None:
        assert self._burst is None, "a busy worker was given another burst"
        self._burst, self._notify = burst, notify_progress
        if not self.is_late:
            self._begin(burst)

    def wake(self) -> None:
        """Begin the burst that was submitted."""
        assert self._burst is not None
        self._begin(self._burst)

    def finish(self, results: Sequence[Result] | None = None) -> None:
        """End the running batch; each request's answer is its own input's bytes, or as told."""
        assert self.running is not None
        assert self._burst is not None
        started_ns, now_ns = self._started_ns, self.time.now_ns
        echoed = [first.tobytes() for each in self.running if (first := each.arrays[0]) is not None]
        self._burst.add_run(BatchRun(results or echoed, started_ns, started_ns, now_ns, now_ns))
        self._begin(self._burst)
        if self.running and self.tells_each:
            self._notify(False)

    def _begin(self, burst: Burst) -> None:
        batch = burst.take_batch()
        if batch:
            self.running, self._started_ns = batch, self.time.now_ns
            self.batches.append(batch)
        else:
            self.running = self._burst = None
            self._notify(True)


class FakeProgram:
    """Doubles its inputs; raises for what `fails` says."""

    nbytes = 1000
    device = "cpu"

    def __init__(self, fails: Callable[[Sequence[Array]], bool] = lambda _: False) -> None:
        self._fails = fails
        self.runs: list[tuple[int, ...]] = []
        self.is_closed = False
        self.gate = threading.Event()
        self.gate.set()

    def run(self, inputs: Arrays) -> list[Array]:
        self.gate.wait(10)
        arrays = [each for each in inputs if each is not None]
        self.runs.append(arrays[0].shape)
        if self._fails(arrays):
            raise ModelFailed("ValueError: poison")
        return [np.asarray(array * 2) for array in arrays]

    def close(self) -> None:
        self.is_closed = True


class FakeRuntime:
    """Loads FakePrograms; refuses the bytes b"broken", and hangs in the warm-up of b"hangs"."""

    def __init__(self, program: Callable[[], FakeProgram] = FakeProgram) -> None:
        self._program = program
        self.programs: list[FakeProgram] = []
        self._by_file: dict[bytes, FakeProgram] = {}
        self.next_program: FakeProgram | None = None  # given out once, instead of a new one
        self.threads: list[int] = []

    def use_threads(self, count: int) -> None:
        self.threads.append(count)

    def load(self, data: bytes, signature: Signature, device: str, instance: int) -> Program:
        if data == b"broken":
            raise StartError("not a model")
        program, self.next_program = self.next_program or self._program(), None
        self.programs.append(program)
        self._by_file[data] = program
        if data == b"hangs":
            program.gate.clear()
        return program

    def program_of(self, data: bytes) -> FakeProgram:
        """Return the newest program of a file: models load side by side, in any order."""
        return self._by_file[data]

    def let_all_run(self) -> None:
        for program in self.programs:
            program.gate.set()
