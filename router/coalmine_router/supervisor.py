"""`router run`: starts the control process and the proxies, restarts what dies, ends them all.

A process of its own, so that a `kill -9` of the control process takes nothing with it: the proxies
go on, and the control process comes back. Children end when their standard input closes, so none
outlives this process, whatever ends it.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple

import structlog

from coalmine.process.child_process import Child, Command
from coalmine.process.lifecycle import Stop, wait_unless_stopped
from coalmine.process.recycling import Recycling
from coalmine.process.worker_bounds import NO_BOUNDS, WorkerBounds
from coalmine_router.processes import ProcessMetrics, ProcessWatch

_log = structlog.get_logger(__name__)

# Longer than a process needs on a machine that has other things to do.
_READY_S: Final = 30.0
# How long proxies wait for a control process that is slow, or hangs, before it was ever ready.
_CONTROL_FIRST_S: Final = 10.0


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


def process_command(name: str, arguments: Sequence[str]) -> Command:
    """Return how one of the router's own processes is started."""
    return Command(name, arguments, (sys.executable, "-m", "coalmine_router"))


class Supervisor:
    """The router's processes: the control process first, the proxies after it, ended in reverse.

    A control process that isn't ready in time is not waited for: proxies serve by their last table.
    """

    def __init__(
        self,
        control: Command,
        proxies: Sequence[Command],
        grace: Grace,
        *,
        proxy_bounds: WorkerBounds = NO_BOUNDS,
        ready_within_s: float = _READY_S,
        control_first_s: float = _CONTROL_FIRST_S,
    ) -> None:
        self._control = Child(control, grace.control_s)
        self._proxies = [Child(proxy, grace.proxies_s) for proxy in proxies]
        self._watch = ProcessWatch([self._control, *self._proxies], self._proxies)
        self._ready_within_s = ready_within_s
        self._control_first_s = control_first_s
        # One replacement of a process at a time.
        self._replacing = asyncio.Lock()
        self._recycling = Recycling(proxy_bounds, self._proxies, self._replace_proxy)

    async def run(self, stop: Stop, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Keep the processes until `stop`. Raises StartError where one can't start.

        `serve` runs once all of them are ready, and is cancelled before they end.
        """
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch.run())
            tasks.create_task(self._control.keep_running())
            if await wait_unless_stopped(stop, self._wait_for_control()):
                for proxy in self._proxies:
                    tasks.create_task(proxy.keep_running())
                await wait_unless_stopped(stop, self._serve_when_ready(serve))
            await stop.wait()
            watching.cancel()
            await self._end_processes()

    def set_control_command(self, control: Command) -> None:
        """Start the control process by this command when it has to be started again."""
        self._control.command = control

    async def succeed_control(self, control: Command) -> bool:
        """Have a control process by another command take over; return whether it got ready.

        The proxies serve on by their table meanwhile.
        """
        return await self._control.start_successor(control, within_s=self._ready_within_s)

    async def roll(self, proxies: Sequence[Command]) -> bool:
        """Replace the proxies, one after the other; return whether all of them were.

        The new one is ready before the old one ends, so no call is without anybody to take it.
        """
        replaced = 0
        for proxy, wanted in zip(self._proxies, proxies, strict=True):
            old = proxy.pid
            replaced += await self._replace_proxy(proxy, wanted)
            if proxy.pid != old:
                _log.info("worker_replaced", process=proxy.name, old=old, new=proxy.pid)
        _log.info("workers_rolled", replaced=replaced, of=len(self._proxies))
        return replaced == len(self._proxies)

    async def _replace_proxy(self, proxy: Child, wanted: Command | None = None) -> bool:
        async with self._replacing:
            return await proxy.replace(wanted, within_s=self._ready_within_s)

    async def _wait_for_control(self) -> None:
        """Return once the control process is ready, or late: a proxy may have a table on disk."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._control_first_s):
                await self._control.ready.wait()
                return
        _log.error("control_late", after_s=self._control_first_s, proxies="start without it")

    async def _serve_when_ready(self, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self._control.ready.wait()
        for proxy in self._proxies:
            await proxy.ready.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recycling.run())
            tasks.create_task(serve())

    def metrics(self) -> ProcessMetrics:
        """Return the figures of all processes, as they are whenever they are asked for."""
        recycled = self._recycling.recycled
        return ProcessMetrics([self._control], self._proxies, recycled)

    def why_not(self) -> str:
        """Return why no proxy takes calls now; "" where one does."""
        return self._watch.why_not()

    async def _end_processes(self) -> None:
        """End the proxies, then the control process: it still takes in their last reports."""
        async with asyncio.TaskGroup() as tasks:
            for proxy in self._proxies:
                tasks.create_task(proxy.end())
        await self._control.end()
