"""A process that compares, as the one that started it sees it."""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from select import POLLIN, poll
from typing import Any, Final, Protocol

from coalmine_router.observer.comparison.compare_worker import Answered, Sending

_PROGRAM: Final = "coalmine_router.observer.comparison.compare_worker"
# A batch takes milliseconds; a rule that somebody wrote may never end.
_PATIENCE_S: Final = 60.0
# Each process is one core's: a linear algebra library would take all of them.
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


class WorkerLost(Exception):
    """The process is gone, hangs, or says what can't be understood; it is of no more use."""


class CompareWorker(Protocol):
    """Someone who compares batches; WorkerProcess is one."""

    @property
    def is_up(self) -> bool:
        """Whether it lives."""
        ...

    def ask(self, batch: Sequence[Any]) -> list[Answered]:
        """Return a result for each job, or what went wrong. Blocks. Raises WorkerLost."""
        ...

    def end(self) -> None:
        """End it, also in the middle of a batch."""
        ...


class WorkerProcess:
    """A fresh interpreter, never a fork: it shares no lock, no connection and no memory.

    It ends by itself once this process is gone, however that ends. Raises OSError where it can't
    be started.
    """

    def __init__(self, run: Callable[[Any], Any], *, patience_s: float = _PATIENCE_S) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _started(theirs)
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
        """Whether it lives. Expects that it has no batch: so all it can say is that it ends."""
        said = poll()
        said.register(self._socket, POLLIN)
        return self._process.poll() is None and not said.poll(0)

    def ask(self, batch: Sequence[Any]) -> list[Answered]:
        """Return a result for each job, or what went wrong. Blocks. Raises WorkerLost."""
        try:
            for each in (*self._unsent, list(batch)):
                pickle.dump(each, Sending(self._socket), pickle.HIGHEST_PROTOCOL)
            self._unsent = []
            answers: list[Answered] = pickle.load(self._answers)  # noqa: S301 - our own process
        except Exception as error:
            raise WorkerLost(str(error) or type(error).__name__) from error
        if len(answers) != len(batch):
            raise WorkerLost(f"{len(answers)} answers to {len(batch)} jobs")
        return answers

    def end(self) -> None:
        """End it, also in the middle of a batch: it has nothing to lose."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for an answer
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._socket.close()


def _started(theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", _PROGRAM, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=2,  # what a rule prints is nobody's result, and no line of the router's
        start_new_session=True,
        env={**os.environ, **_ONE_THREAD},
    )
