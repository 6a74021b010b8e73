"""One process that says when it is ready, from its start to its end.

It announces itself by `lifecycle.announce`. It ends by itself when its standard input closes
(`lifecycle.run(…, with_parent=True)`), so it never outlives its parent.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from coalmine.errors import reason_of
from coalmine.process.parent_pipe import LET_GO, READY, STANDING_BY, YOUR_TURN
from coalmine.process.standard_streams import own_descriptor

_log = structlog.get_logger(__name__)

# As a shell has it, of what it couldn't run.
_NOT_STARTED: Final = 126


@dataclass(frozen=True, slots=True)
class Command:
    """A child's name in the log, its arguments, and the program, `python -m PACKAGE`."""

    name: str
    arguments: Sequence[str]
    program: Sequence[str]


class StartedProcess:
    """One run of a command. It calls `on_ready` when the process has announced itself.

    `patience_s` is how long it may take to end before it is killed.
    """

    def __init__(self, command: Command, patience_s: float, on_ready: Callable[[], None]) -> None:
        self._command = command
        self._patience_s = patience_s
        self._on_ready = on_ready
        self._process: asyncio.subprocess.Process | None = None
        self._stands_by = asyncio.Event()
        self._spoken = asyncio.Event()
        self._has_let_go = asyncio.Event()
        self._has_left = asyncio.Event()
        self._over = asyncio.Event()  # with it, all of these
        self._code = 0
        self.announcement: dict[str, Any] = {}
        self.is_asked = False  # to end

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    @property
    def is_up(self) -> bool:
        """Whether it has announced itself, and lives."""
        return bool(self.announcement) and not self.is_over

    @property
    def pid(self) -> int:
        """Its process id; 0 of one that couldn't be started."""
        return self._process.pid if self._process is not None else 0

    async def run(self) -> None:
        """Start the process, unless it was asked to end, and read its events until it ends."""
        try:
            self._code = 0 if self.is_asked else await self._spawn_and_wait()
        except OSError as error:
            _log.error("process_not_started", process=self._command.name, reason=reason_of(error))
            self._code = _NOT_STARTED
        except asyncio.CancelledError:
            await self.end()
            raise
        finally:
            self._over.set()
            for each in (self._stands_by, self._spoken, self._has_let_go, self._has_left):
                each.set()

    async def wait_ready(self, within_s: float) -> bool:
        """Return whether it announced itself in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._spoken.wait()
        return self.is_up

    async def wait_standing_by(self, within_s: float) -> bool:
        """Return whether it said in time that it can take another's place."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._stands_by.wait()
        return self._stands_by.is_set() and not self.is_over

    def give_turn(self) -> None:
        """Tell a process that stands by that it can take over."""
        process = self._process
        if process is not None and process.stdin is not None and process.returncode is None:
            process.stdin.write(YOUR_TURN)

    async def wait_let_go(self) -> None:
        """Return once another can take its place; it may still have something to finish."""
        await self._has_let_go.wait()

    def mark_replaced(self) -> None:
        """Note that another process has taken over: the fate of this one matters no more."""
        self._has_left.set()

    async def wait_ended_or_replaced(self) -> int:
        """Return the exit code once it has ended, or `mark_replaced` was called."""
        await self._has_left.wait()
        return self._code

    async def wait_over(self) -> None:
        """Return once it has ended."""
        await self._over.wait()

    async def end(self) -> None:
        """Ask the process to end, once; kill it where it does not in time."""
        asked_before, self.is_asked = self.is_asked, True
        process = self._process
        if process is None or process.returncode is not None:
            return
        if not asked_before:  # a second signal would end it at once
            _send_signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._patience_s):
                await process.wait()
        except TimeoutError:
            _log.error("process_killed", process=self._command.name, after_s=self._patience_s)
            _send_signal(process, signal.SIGKILL)
            await process.wait()

    def kill(self) -> None:
        """Kill it, where it lives."""
        if self._process is not None and self._process.returncode is None:
            _send_signal(self._process, signal.SIGKILL)

    async def _spawn_and_wait(self) -> int:
        process = self._process = await asyncio.create_subprocess_exec(
            *(*self._command.program, *self._command.arguments, "--with-parent"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=own_descriptor(sys.stderr),
            # Ctrl-C goes to the whole group: the order in which processes end is ours to choose.
            start_new_session=True,
        )
        _log.info("process_started", process=self._command.name, pid=process.pid)
        if self.is_asked:  # while it was being started: nobody has told it
            self.is_asked = False
            await self.end()
        return await self._read_events(process)

    async def _read_events(self, process: asyncio.subprocess.Process) -> int:
        assert process.stdout is not None  # noqa: S101 - asked for above
        while line := await _next_line(process.stdout):
            self._handle_line(line)
        return await process.wait()

    def _handle_line(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):  # not ours: a library's word
            said = json.loads(line)
            if isinstance(said, dict):
                self._note_event(said)

    def _note_event(self, said: dict[str, Any]) -> None:
        event = said.get("event")
        if event == READY:
            self.announcement = said
            self._spoken.set()
            self._on_ready()
        elif event == STANDING_BY:
            self._stands_by.set()
        elif event == LET_GO:
            self._has_let_go.set()


def _send_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, empty at the end. One too long for asyncio is nobody's announcement."""
    while True:
        with contextlib.suppress(ValueError):  # it has dropped what it read so far
            return await stream.readline()
