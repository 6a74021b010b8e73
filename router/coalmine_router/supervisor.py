"""`router run`: starts the control process and the proxies, restarts what dies, ends them all.

A process of its own, so that a `kill -9` of the control process takes nothing with it: the proxies
go on, and the control process comes back. Children end when their standard input closes, so none
outlives this process, whatever ends it.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog

from coalmine.errors import StartError
from coalmine.lifecycle import EXIT_CANNOT_START, Stop, unless_stopped

_log = structlog.get_logger(__name__)

_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_LIVED_LONG_S: Final = 30.0
# One that was never ready by then has something wrong that another start won't mend.
_FIRST_STARTS_MAX: Final = 3

PROGRAM: Final = (sys.executable, "-m", "coalmine_router")


class Grace(NamedTuple):
    """How the time to end is shared out, in seconds.

    Requests in flight have `requests_s`; with their last reports the proxies have `proxies_s`. Then
    shadows have `copies_s`; with its last spans the control process has `control_s`.
    """

    requests_s: float
    proxies_s: float
    copies_s: float
    control_s: float

    @classmethod
    def of(cls, grace_s: float) -> "Grace":
        """Return the shares of a grace period in which every process has to end."""
        return cls(grace_s * 0.6, grace_s * 0.7, grace_s * 0.15, grace_s * 0.3)


@dataclass(frozen=True, slots=True)
class Command:
    """A child: its name in the log, and what the program, `python -m coalmine_router`, is given."""

    name: str
    arguments: Sequence[str]
    program: Sequence[str] = PROGRAM


class Child:
    """One process, kept alive until it is asked to end."""

    def __init__(self, command: Command, patience_s: float) -> None:
        self._command = command
        self._patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()
        self.ready = asyncio.Event()
        self.announced: dict[str, Any] = {}

    async def keep(self) -> None:
        """Run the process, again whenever it ends, until `end` is called.

        Raises StartError where it can't start the first time: it has said why on standard error.
        """
        loop = asyncio.get_running_loop()
        backoff_s = _BACKOFF_FIRST_S
        starts = 0
        while not self._ending.is_set():
            began_s = loop.time()
            code = await self._once()
            starts += 1
            if self._ending.is_set():
                return
            if not self.ready.is_set():
                self._give_up(code, starts)
            if loop.time() - began_s > _LIVED_LONG_S:
                backoff_s = _BACKOFF_FIRST_S
            _log.error("process_died", process=self._command.name, code=code, again_in_s=backoff_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._ending.wait()
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)

    def _give_up(self, code: int, starts: int) -> None:
        """Raise StartError where another start would be of no use."""
        if code == EXIT_CANNOT_START:
            raise StartError  # it has said why, in the one line that is owed
        if starts == _FIRST_STARTS_MAX:
            raise StartError(f"the {self._command.name} process did not start")

    async def end(self) -> None:
        """Ask the process to end; kill it where it does not in time."""
        self._ending.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._patience_s):
                await process.wait()
        except TimeoutError:
            _log.error("process_killed", process=self._command.name, after_s=self._patience_s)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _once(self) -> int:
        process = self._process = await asyncio.create_subprocess_exec(
            *(*self._command.program, *self._command.arguments, "--with-parent"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C goes to the whole group: the order in which processes end is ours to choose.
            start_new_session=True,
        )
        _log.info("process_started", process=self._command.name, pid=process.pid)
        try:
            if self._ending.is_set():
                await self.end()
            return await self._listen(process)
        except asyncio.CancelledError:
            await self.end()
            raise

    async def _listen(self, process: asyncio.subprocess.Process) -> int:
        assert process.stdout is not None  # noqa: S101 - asked for above
        async for line in process.stdout:
            self._hear(line)
        return await process.wait()

    def _hear(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):  # not ours: a library's word
            said = json.loads(line)
            if isinstance(said, dict) and said.get("event") == "ready":
                self.announced = said
                self.ready.set()


class Supervisor:
    """The router's processes: the control process first, the proxies after it, ended in reverse."""

    def __init__(self, control: Command, proxies: Sequence[Command], grace: Grace) -> None:
        self._control = Child(control, grace.control_s)
        self._proxies = [Child(proxy, grace.proxies_s) for proxy in proxies]

    async def run(self, stop: Stop, ready: Callable[[Mapping[str, Any]], None]) -> None:
        """Keep the processes until `stop`. Raises StartError where one can't start.

        `ready` is called once all of them are, with what the control process announced.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._control.keep())
            if await unless_stopped(stop, self._control.ready.wait()):
                for proxy in self._proxies:
                    tasks.create_task(proxy.keep())
                if await unless_stopped(stop, self._proxies_ready()):
                    ready(self._control.announced)
            await stop.wait()
            await self._end()

    async def _proxies_ready(self) -> None:
        for proxy in self._proxies:
            await proxy.ready.wait()

    async def _end(self) -> None:
        """End the proxies, then the control process: it still takes in their last reports."""
        async with asyncio.TaskGroup() as tasks:
            for proxy in self._proxies:
                tasks.create_task(proxy.end())
        await self._control.end()
