"""Real processes, started by the program's own command line, told apart by their pids."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_READY_S = 60.0
_END_S = 30.0


@dataclass
class Started:
    """A running process; `said` is the line in which it announced its addresses."""

    process: subprocess.Popen[str]
    log: Path
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    def address(self, name: str) -> str:
        return str(self.said[name])

    def page(self, path: str = "/metrics") -> str:
        """Return what it answers over HTTP."""
        with urllib.request.urlopen(f"http://{self.address('http')}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code. One that does not end fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self._ended()

    def kill(self) -> None:
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self.process.wait(_END_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def children(self) -> dict[int, list[str]]:
        """Return the command line of each living child by pid."""
        found = {}
        for file in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for child in file.read_text().split():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                    found[int(child)] = words
        return found

    def child(self, kind: str) -> int:
        """Return the pid of the first child whose command has the word `kind`."""
        return next(pid for pid, words in self.children().items() if kind in words)


@contextlib.contextmanager
def started(
    *arguments: str | Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
) -> Iterator[Started]:
    """Run `coalmine ARGUMENTS` and yield it once it is ready; at the end it is stopped."""
    running = begin(*arguments, folder=folder, environment=environment, inside=inside)
    try:
        running.said = announced(running)
        yield running
    finally:
        running.stop()


def begin(
    *arguments: str | Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
) -> Started:
    """Run `coalmine ARGUMENTS` without waiting; its log is a new file in `folder`.

    `inside` is a command that runs another one.
    """
    log = folder / f"{arguments[0]}-{len(list(folder.glob('*.log')))}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "coalmine_client", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
    return Started(process, log)


def ran(
    *arguments: str | Path, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `coalmine ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "coalmine_client", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_READY_S,
        env={**os.environ, **(environment or {})},
        cwd=folder,
        check=False,
    )


def alive(pid: int) -> bool:
    """Return whether there is such a process that has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def announced(running: Started) -> Mapping[str, Any]:
    """Return what it says when it is ready; fail where it ends before."""
    assert running.process.stdout is not None
    watchdog = threading.Timer(_READY_S, running.process.kill)
    watchdog.start()
    try:
        line = running.process.stdout.readline()
    finally:
        watchdog.cancel()
    assert line, f"it ended before it was ready:\n{running.log.read_text()}"
    said: Mapping[str, Any] = json.loads(line)
    return said
