"""A process that another one starts, starts again when it dies, and ends.

It announces itself by `lifecycle.announce`, and ends by itself when its standard input closes
(`lifecycle.run(…, with_parent=True)`), so it never outlives whoever started it.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from coalmine.errors import StartError
from coalmine.lifecycle import EXIT_CANNOT_START

_log = structlog.get_logger(__name__)

_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_LIVED_LONG_S: Final = 30.0
# One that was never ready by then has something wrong that another start won't mend.
_FIRST_STARTS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Command:
    """A child: its name in the log, what it is given, and the program, `python -m PACKAGE`."""

    name: str
    arguments: Sequence[str]
    program: Sequence[str]


class Child:
    """One process, kept alive until it is asked to end."""

    def __init__(self, command: Command, patience_s: float) -> None:
        self._command = command
        self._patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()
        self.ready = asyncio.Event()  # once; whether it is so now, `is_up` says
        self.announced: dict[str, Any] = {}
        self.is_up = False
        self.restarts = 0

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
            self.restarts += 1
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
        finally:
            self.is_up = False

    async def _listen(self, process: asyncio.subprocess.Process) -> int:
        assert process.stdout is not None  # noqa: S101 - asked for above
        while line := await _line(process.stdout):
            self._hear(line)
        return await process.wait()

    def _hear(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):  # not ours: a library's word
            said = json.loads(line)
            if isinstance(said, dict) and said.get("event") == "ready":
                self.announced = said
                self.is_up = True
                self.ready.set()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, empty at the end. One too long for asyncio is nobody's announcement."""
    while True:
        with contextlib.suppress(ValueError):  # it has dropped what it read so far
            return await stream.readline()
