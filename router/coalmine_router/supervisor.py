"""`router run`: starts the control process and the proxies, restarts what dies, ends them all.

A process of its own, so that a `kill -9` of the control process takes nothing with it: the proxies
go on, and the control process comes back. Children end when their standard input closes, so none
outlives this process, whatever ends it.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from coalmine.child_process import Child, Command
from coalmine.lifecycle import Stop, unless_stopped


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


def command(name: str, arguments: Sequence[str]) -> Command:
    """Return how one of the router's own processes is started."""
    return Command(name, arguments, (sys.executable, "-m", "coalmine_router"))


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
