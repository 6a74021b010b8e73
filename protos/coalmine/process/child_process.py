"""A child process: its parent starts it, restarts it when it dies, replaces it and ends it."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, Final

import structlog

from coalmine.errors import StartError
from coalmine.process.exit_codes import EXIT_CANNOT_START
from coalmine.process.started_process import Command, StartedProcess

__all__ = ["Child", "Command"]

_log = structlog.get_logger(__name__)

_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_LIVED_LONG_S: Final = 30.0
# One that was never ready by then has something wrong that another start won't mend.
_FIRST_STARTS_MAX: Final = 3


class Child:
    """One process, which is kept alive until it is asked to end, and can be replaced.

    `restarts` counts deaths that nobody asked for; `failures` counts processes that were to take
    its place and didn't get ready.
    """

    def __init__(self, command: Command, patience_s: float) -> None:
        # Read whenever a process is started: another one holds from then on.
        self.command = command
        self._patience_s = patience_s
        self._tasks: asyncio.TaskGroup
        self._process: StartedProcess | None = None
        # On its way to take the place of `_process`.
        self._next: StartedProcess | None = None
        self._all: set[StartedProcess] = set()
        self._ending = asyncio.Event()
        self.ready = asyncio.Event()  # once; whether it is so now, `is_up` says
        self.restarts = 0
        self.failures = 0

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self.command.name

    @property
    def announcement(self) -> dict[str, Any]:
        """What the process said when it was ready; empty while it isn't yet."""
        return self._process.announcement if self._process is not None else {}

    @property
    def is_up(self) -> bool:
        """Whether the process is ready now."""
        return self._process is not None and self._process.is_up

    @property
    def pid(self) -> int:
        """The process id; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    async def keep_running(self) -> None:
        """Run the process, again whenever it ends, until `end` is called.

        Raises StartError where it can't start the first time: it has said why on standard error.
        """
        async with asyncio.TaskGroup() as self._tasks:
            problem = await self._keep_until_end()
        if problem is not None:
            raise problem

    async def replace(self, command: Command | None = None, *, within_s: float) -> bool:
        """Start another process beside this one. Once it is ready it takes over; the old one ends.

        Return whether it took over. A new process that isn't ready `within_s`, or dies, is ended
        and counted, and the old one stays. Both run meanwhile, so they must share their ports. A
        `command` is that of later processes too. One replacement or succession at a time.
        """
        new = self._next = self._make_process(command)
        self._tasks.create_task(new.run())
        return await self._replace_once_ready(new, command, within_s, old=self._process)

    async def start_successor(self, command: Command, *, within_s: float) -> bool:
        """Start another process, which takes over once it stands by and the old one has let go.

        This is for processes that can't serve beside each other. Return whether it took over. A new
        process that doesn't stand by `within_s`, or dies, is ended and counted, and the old one
        stays. If it fails later, it is started again by the old command, as after a death.
        """
        for each in self._all - {self._process}:  # two at a time, however often it is asked for
            await each.wait_over()
        old = self._process
        standing_by = replace(command, arguments=(*command.arguments, "--stand-by"))
        new = self._next = self._make_process(standing_by)
        self._tasks.create_task(new.run())
        if not await new.wait_standing_by(within_s):
            await self._end_failed(new, within_s)
            return False
        # Not here: where whoever waits is cancelled, there is one that serves all the same.
        self._tasks.create_task(_hand_over_ports(old, new))
        return await self._replace_once_ready(new, command, within_s, old=None)

    def kill(self) -> None:
        """Kill the process that has the place, for one that hangs; it is started again."""
        if self._process is not None:
            self._process.kill()

    async def end(self) -> None:
        """Ask the process to end; kill it where it does not in time."""
        self._ending.set()
        async with asyncio.TaskGroup() as tasks:
            for each in tuple(self._all):
                tasks.create_task(each.end())

    # ------------------------------------------------------------ keeping

    async def _keep_until_end(self) -> StartError | None:
        """Keep the process until the end; return why it was given up, if it was."""
        loop = asyncio.get_running_loop()
        backoff_s = _BACKOFF_FIRST_S
        starts = 0
        while not self._ending.is_set():
            began_s = loop.time()
            code = await self._wait_until_dead()
            starts += 1
            if self._ending.is_set():
                break
            if not self.ready.is_set() and (problem := self._reason_to_give_up(code, starts)):
                return problem
            if loop.time() - began_s > _LIVED_LONG_S:
                backoff_s = _BACKOFF_FIRST_S
            await self._back_off(code, backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
        return None

    async def _wait_until_dead(self) -> int:
        """Return the exit code of the first process that ends without a successor."""
        if self._process is None or self._process.is_over:
            self._process, self._next = self._next or self._start_process(), None
        while True:
            process = self._process
            code = await process.wait_ended_or_replaced()
            if process is not self._process:
                continue
            if self._next is None:
                return code
            self._process, self._next = self._next, None

    async def _back_off(self, code: int, backoff_s: float) -> None:
        self.restarts += 1
        _log.error(
            "process_died",
            process=self.name,
            code=code,
            restarts=self.restarts,
            again_in_s=backoff_s,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff_s):
                await self._ending.wait()

    def _reason_to_give_up(self, code: int, starts: int) -> StartError | None:
        """Return why another start would be of no use; None if it may be."""
        if code == EXIT_CANNOT_START:
            return StartError()  # it has said why, in the one line that is owed
        if starts == _FIRST_STARTS_MAX:
            return StartError(f"the {self.name} process did not start")
        return None

    # ------------------------------------------------------------ one process and the next

    def _start_process(self) -> StartedProcess:
        process = self._make_process(None)
        self._tasks.create_task(process.run())
        return process

    def _make_process(self, command: Command | None) -> StartedProcess:
        process = StartedProcess(command or self.command, self._patience_s, self.ready.set)
        process.is_asked = self._ending.is_set()
        self._all = {each for each in self._all if not each.is_over} | {process}
        return process

    async def _replace_once_ready(
        self,
        new: StartedProcess,
        command: Command | None,
        within_s: float,
        *,
        old: StartedProcess | None,
    ) -> bool:
        """Let `new` take over once it is ready, and end `old`; else end `new`."""
        if not await new.wait_ready(within_s):
            await self._end_failed(new, within_s)
            return False
        before, self._process, self._next = self._process, new, None
        if before is not None and before is not new:
            before.mark_replaced()
        self.command = command or self.command
        if old is not None:
            await old.end()
        return True

    async def _end_failed(self, new: StartedProcess, within_s: float) -> None:
        if self._ending.is_set():
            return
        self.failures += 1
        reason = "it died" if new.is_over else f"not ready within {within_s:g} s"
        _log.error("replacement_failed", process=self.name, reason=reason, failures=self.failures)
        if self._next is new:
            self._next = None
        await new.end()


async def _hand_over_ports(old: StartedProcess | None, new: StartedProcess) -> None:
    """End the old one; have the new one serve as soon as it can."""
    async with asyncio.TaskGroup() as tasks:
        if old is not None:
            tasks.create_task(old.end())
            await old.wait_let_go()
        new.give_turn()
