"""One thread with its own copy of a model: torch runs here, never on the loop."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import structlog

from coalmine.clock import Clock
from coalmine.errors import ModelFailed
from coalmine_server.runtime.execution import Arrays, Ran, Result, execute
from coalmine_server.runtime.program import Program
from coalmine_server.signature import Signature

_log = structlog.get_logger(__name__)

Post = Callable[[Callable[[], object]], object]


@dataclass(frozen=True, slots=True)
class _Job:
    batch: Sequence[Arrays]
    done: Callable[[Ran], None]


class Worker:
    """Runs one batch at a time on a thread of its own.

    `post` brings a callback from the thread to whoever waits, in practice onto the loop.
    """

    def __init__(
        self, *, signature: Signature, open_program: Callable[[], Program], clock: Clock, post: Post
    ) -> None:
        self._signature = signature
        self._open = open_program
        self._clock = clock
        self._post = post
        # Unbounded by type, but the batcher hands a batch only to an idle worker.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, opened: Callable[[Exception | None], None]) -> None:
        """Open the program on the thread; `opened` gets None, or why it can't be opened."""
        name = f"{self._signature.model}-{self._signature.version}"
        # Daemon: a forward that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._work, args=(opened,), name=name, daemon=True)
        self._thread.start()

    def submit(self, batch: Sequence[Arrays], done: Callable[[Ran], None]) -> None:
        """Run `batch`, then post its results to `done`."""
        self._jobs.put(_Job(batch, done))

    def stop(self) -> None:
        """End the thread after what it is doing."""
        self._jobs.put(None)

    def ended(self, timeout_s: float) -> bool:
        """Return whether the thread ended, waiting `timeout_s` for it."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self, opened: Callable[[Exception | None], None]) -> None:
        try:
            program = self._open()
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            self._tell(lambda failure=error: opened(failure))  # type: ignore[misc]  # bound now: Python unbinds `error`
            return
        self._tell(lambda: opened(None))
        while (job := self._jobs.get()) is not None:
            self._do(program, job)

    def _do(self, program: Program, job: _Job) -> None:
        started_ns = self._clock.monotonic_ns()
        results = self._results(program, job.batch)
        ended_ns = self._clock.monotonic_ns()
        ran = Ran(results, started_ns, started_ns, ended_ns, ended_ns)
        self._tell(lambda: job.done(ran))

    def _results(self, program: Program, batch: Sequence[Arrays]) -> Sequence[Result]:
        try:
            return execute(program, self._signature, batch)
        except Exception as error:  # noqa: BLE001 - a bug of ours, and the thread must outlive it
            _log.exception("batch_failed", label=self._signature.label)
            failure = ModelFailed(f"{self._signature.label}: {type(error).__name__}")
            return [failure] * len(batch)

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            self._post(callback)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _log.debug("result_unwanted", label=self._signature.label)
