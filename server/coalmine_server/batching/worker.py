"""One thread with its own copy of a model: torch runs here, never on the loop."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

import structlog
from structlog.contextvars import get_contextvars

from coalmine.clock import Clock
from coalmine.errors import ModelFailed
from coalmine.process.output_capture import printing_as
from coalmine_server.batching.burst import Burst
from coalmine_server.runtime.execution import BatchRun, Execution
from coalmine_server.runtime.program import Program
from coalmine_server.signature import CheckedRequest, Signature

_log = structlog.get_logger(__name__)

Post = Callable[[Callable[[], object]], object]

# The loop is notified of batches once they have taken this long together, or none is left to run.
_NOTIFY_EACH_NS: Final = 1_000_000
# Where one of the last two bursts had so many batches, more requests are on their way, and a short
# wait for them pays: a wake-up costs more than a small model does, and beside the loop a forward
# waits for Python's lock.
_COMPANY_MIN: Final = 3
_LINGER_S: Final = 0.0005


@dataclass(slots=True, eq=False)
class _Job:
    burst: Burst
    notify_progress: Callable[[bool], object]


class Worker:
    """Runs one burst at a time on a thread of its own.

    `post` has a callback run where the results are awaited, in practice on the loop. Once the
    program is open, its parameters and buffers take `nbytes` on `device`.
    """

    def __init__(
        self,
        *,
        signature: Signature,
        open_program: Callable[[], Program],
        clock: Clock,
        post: Post,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._signature = signature
        self._opening: list[Callable[[], Program]] = [open_program]  # until it has been called
        self._clock = clock
        self._post = post
        self._sleep = sleep
        # Unbounded by type, but the batcher hands a burst only to an idle worker.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.nbytes = 0
        self.device = ""

    def start(self, opened: Callable[[Exception | None], None]) -> None:
        """Open the program on the thread; `opened` gets None, or why it can't be opened."""
        name = f"{self._signature.model}-{self._signature.version}"
        # Daemon: a forward that never returns must not keep the process alive.
        words = {**get_contextvars(), "model": self._signature.model}
        words["version"] = self._signature.version
        self._thread = threading.Thread(
            target=self._work, args=(opened, words), name=name, daemon=True
        )
        self._thread.start()

    def submit(self, burst: Burst, notify_progress: Callable[[bool], object]) -> None:
        """Run `burst`; post `notify` when there are results to collect, with True at the end."""
        self._jobs.put(_Job(burst, notify_progress))

    def stop(self) -> None:
        """End the thread after what it is doing."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait `timeout_s` for the thread to end, and return whether it did."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self, opened: Callable[[Exception | None], None], words: Mapping[str, Any]) -> None:
        with printing_as(**words):
            self._open_and_run_jobs(opened)

    def _open_and_run_jobs(self, opened: Callable[[Exception | None], None]) -> None:
        try:
            program = self._opening.pop()()  # gone with it are the file's bytes
        except Exception as error:  # noqa: BLE001 - handed to the loop
            self._post_callback(lambda failure=error: opened(failure))  # type: ignore[misc]  # bound now: Python unbinds `error`
            return
        self.nbytes, self.device = program.nbytes, program.device
        self._post_callback(lambda: opened(None))
        try:
            self._run_jobs(Execution(program, self._signature, self._clock))
        finally:
            program.close()

    def _run_jobs(self, execution: Execution) -> None:
        last, before = 0, 0
        while (job := self._jobs.get()) is not None:
            if max(last, before) >= _COMPANY_MIN:
                self._sleep(_LINGER_S)
            last, before = self._run_burst(execution, job), last
            del job  # or it would keep a batch's memory until the next one comes

    def _run_burst(self, execution: Execution, job: _Job) -> int:
        """Run a burst, and return how many batches that was."""
        burst, untold_since_ns, runs = job.burst, self._clock.monotonic_ns(), 0
        batch = burst.take_batch()
        while batch:
            ran = self._run_batch(execution, batch)
            burst.add_run(ran)
            runs += 1
            batch = burst.take_batch()
            if batch and ran.ended_ns - untold_since_ns >= _NOTIFY_EACH_NS:
                untold_since_ns = ran.ended_ns
                self._post_callback(partial(job.notify_progress, False))  # noqa: FBT003 - a callback's
        self._post_callback(partial(job.notify_progress, True))  # noqa: FBT003 - a callback's
        return runs

    def _run_batch(self, execution: Execution, batch: Sequence[CheckedRequest]) -> BatchRun:
        started_ns = self._clock.monotonic_ns()
        try:
            return execution.run(batch)
        except Exception as error:  # noqa: BLE001 - a bug of ours, and the thread must outlive it
            _log.exception("batch_failed", label=self._signature.label)
            failure = ModelFailed(f"{self._signature.label}: {type(error).__name__}")
            ended_ns = self._clock.monotonic_ns()
            return BatchRun([failure] * len(batch), started_ns, started_ns, ended_ns, ended_ns)

    def _post_callback(self, callback: Callable[[], object]) -> None:
        try:
            self._post(callback)
        except RuntimeError:  # the loop is closed
            _log.debug("result_unwanted", label=self._signature.label)
