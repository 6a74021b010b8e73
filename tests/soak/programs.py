"""The soak's processes beside the router: servers that can be killed, the collector, the load."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.doubles.processes import Started, announced, begin
from tests.soak.load import PORTS, VISITOR
from tests.soak.tally import Kill, Tally

_ROOT = Path(__file__).parents[2]
_END_S = 20.0

_ENVIRONMENT = {"OTEL_TRACES_EXPORTER": "none", "COALMINE_LOG_FORMAT": "json"}


class Server:
    """A `coalmine server run` with an address of its own, killed and started again there."""

    def __init__(self, address: str, repository: Path, folder: Path) -> None:
        self.address = address
        self._repository = repository
        self._folder = folder
        self._running: Started | None = None

    def begin(self) -> None:
        """Start it, without waiting."""
        arguments = ("--model-repository", self._repository, "--listen", self.address)
        self._running = begin(
            *("server", "run", *arguments, "--http", f"{self.address.rpartition(':')[0]}:0"),
            folder=self._folder,
            environment=_ENVIRONMENT,
        )

    def await_ready(self) -> None:
        announced(self._process)

    def kill(self) -> None:
        self._process.kill()

    def send(self, sign: signal.Signals) -> None:
        self._process.process.send_signal(sign)

    def end(self) -> None:
        """Stop it, whatever state it is in."""
        if self._running is not None:
            self._running.process.kill()
            self._running.stop()
            self._running = None

    @property
    def _process(self) -> Started:
        assert self._running is not None
        return self._running


class Program:
    """One of the soak's own programs, `python -m MODULE`; it ends when its input closes."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, **_ENVIRONMENT},
        )

    def ask(self, line: str) -> str:
        """Write a line, and return the line that answers it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.process.args!r} ended: {self.process.poll()}"
        return line.strip()

    def end(self) -> str:
        """Close its input, and return what it says then."""
        try:
            said, _ = self.process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, _ = self.process.communicate()
        return said


@contextlib.contextmanager
def program(module: str, *arguments: str) -> Iterator[Program]:
    running = Program(module, *arguments)
    try:
        yield running
    finally:
        running.end()


class Load:
    """The callers."""

    def __init__(self, running: Program) -> None:
        self._running = running

    def tally(self, kill: Kill | None = None) -> Tally:
        """Return what became of the calls since the last one, and how many the kill hit."""
        return Tally.of(json.loads(self._running.ask(json.dumps(kill.said()) if kill else "")))

    def channels_from(self, ports: set[int]) -> frozenset[int]:
        """Return the numbers of the channels that are connected from one of these ports."""
        known = [set(each) for each in json.loads(self._running.ask(PORTS))]
        found = {number for number, each in enumerate(known) if each & ports}
        # Nobody else calls while one of these faults is done.
        visits = {VISITOR} if ports - set().union(*known) else set()
        return frozenset(found | visits)
