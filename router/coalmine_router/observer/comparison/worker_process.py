"""A process that compares, seen from the router: starting, asking and ending it."""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from select import POLLIN, poll
from typing import Any, Final, Protocol

from coalmine_router.observer.comparison.compare_worker import JobAnswer, SocketWriter

_PROGRAM: Final = "coalmine_router.observer.comparison.compare_worker"
# A batch takes milliseconds; a rule of one's own may never end.
_PATIENCE_S: Final = 60.0
# Each process is for one core; a linear algebra library would take all of them.
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


class WorkerLost(Exception):
    """The process is gone, hangs, or sends what can't be read. It can't be used again."""


class CompareWorker(Protocol):
    """Compares batches of jobs; WorkerProcess is one."""

    @property
    def is_up(self) -> bool:
        """Whether it is alive."""
        ...

    def ask(self, batch: Sequence[Any]) -> list[JobAnswer]:
        """Return a result for each job, or what went wrong. Blocks. Raises WorkerLost."""
        ...

    def end(self) -> None:
        """End it, also in the middle of a batch."""
        ...


class WorkerProcess:
    """A fresh interpreter, never a fork: it shares no lock, no connection and no memory.

    It ends by itself when the router ends, however that happens. Raises OSError where it can't be
    started.
    """

    def __init__(self, run: Callable[[Any], Any], *, patience_s: float = _PATIENCE_S) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _start_process(theirs)
            except OSError:
                self._socket.close()
                raise
        self._socket.settimeout(patience_s)
        self._answers = self._socket.makefile("rb")
        self._unsent: list[Any] = [sys.path, run]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether it is alive. Read it between batches only: whatever it sends then is its end."""
        readable = poll()
        readable.register(self._socket, POLLIN)
        return self._process.poll() is None and not readable.poll(0)

    def ask(self, batch: Sequence[Any]) -> list[JobAnswer]:
        """Return a result for each job, or what went wrong. Blocks. Raises WorkerLost."""
        try:
            for each in (*self._unsent, list(batch)):
                pickle.dump(each, SocketWriter(self._socket), pickle.HIGHEST_PROTOCOL)
            self._unsent = []
            answers: list[JobAnswer] = pickle.load(self._answers)  # noqa: S301 - our own process
        except Exception as error:
            raise WorkerLost(str(error) or type(error).__name__) from error
        if len(answers) != len(batch):
            raise WorkerLost(f"{len(answers)} answers to {len(batch)} jobs")
        return answers

    def end(self) -> None:
        """End it, even in the middle of a batch: it holds no state."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for an answer
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._socket.close()


def _start_process(theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", _PROGRAM, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=2,  # so that what a rule prints is not taken for a result
        start_new_session=True,
        env={**os.environ, **_ONE_THREAD},
    )
