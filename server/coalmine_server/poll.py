"""The poll of the repository: models that changed on disk are loaded, and removed ones unloaded."""

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

import structlog

from coalmine.errors import CoalmineError, LoadFailed, StartError
from coalmine.process.blocking_thread import run_in_thread
from coalmine_server.repository import Repository, Stamp

_log = structlog.get_logger(__name__)

_AT_ONCE_MAX: Final = 32  # models; further ones come with a later poll
_WAIT_S: Final = 1.0


class RepositoryFollower(Protocol):
    """Where changes on the disk go."""

    async def load(self, name: str) -> None:
        """Make a model what its folder says."""
        ...

    async def remove(self, name: str) -> None:
        """Serve a model no more, and forget it."""
        ...


class Poller:
    """Follows a repository. A model that can't be loaded is tried again when its files change."""

    def __init__(self, repository: Repository, follower: RepositoryFollower) -> None:
        self._repository = repository
        self._follower = follower
        self._known_stamps: dict[str, Stamp] = {}
        self._unreadable = ""
        self._running: dict[str, asyncio.Task[None]] = {}

    async def note_known_stamps(self) -> None:
        """Take the models that are there now as known."""
        self._known_stamps = await run_in_thread(self._repository.stamps)

    async def run(self, every_s: float) -> None:
        """Poll every `every_s` seconds, or never where that is 0, until cancelled."""
        try:
            while every_s:
                await asyncio.sleep(every_s)
                await self.poll_once()
            await asyncio.Event().wait()
        finally:
            for task in self._running.values():
                task.cancel()

    async def poll_once(self) -> None:
        """Read the repository once, and follow what has changed since the last time.

        A change that takes longer than a second goes on beside later polls. They leave its model
        alone, unless it is removed. So a load that hangs delays no other.
        """
        try:
            found = await run_in_thread(self._repository.stamps)
        except (OSError, StartError) as error:
            self._log_unreadable(str(error))
            return
        self._unreadable = ""
        for name in [each for each in self._known_stamps if each not in found]:
            del self._known_stamps[name]
            self._start_change(name, self._follower.remove(name))
        for name, stamp in found.items():
            if self._known_stamps.get(name) != stamp and self._has_room_for(name):
                self._known_stamps[name] = stamp
                self._start_change(name, self._follower.load(name))
        if self._running:
            await asyncio.wait(self._running.values(), timeout=_WAIT_S)

    def _has_room_for(self, name: str) -> bool:
        return name not in self._running and len(self._running) < _AT_ONCE_MAX

    def _start_change(self, name: str, change: Awaitable[None]) -> None:
        task = asyncio.create_task(self._follow_change(change))
        self._running[name] = task
        task.add_done_callback(lambda ended: self._forget_change(name, ended))

    def _forget_change(self, name: str, ended: asyncio.Task[None]) -> None:
        if self._running.get(name) is ended:  # not where a removal came after it
            del self._running[name]

    def _log_unreadable(self, reason: str) -> None:
        """Log once why the repository can't be followed; the models that run go on."""
        if reason != self._unreadable:
            _log.warning("repository_unreadable", reason=reason)
        self._unreadable = reason

    async def _follow_change(self, change: Awaitable[None]) -> None:
        try:
            await change
        except LoadFailed:
            return  # logged where it failed
        except CoalmineError as error:
            _log.warning("change_not_followed", reason=str(error))
        except Exception:  # noqa: BLE001 - a bug of ours, and the other models go on
            _log.exception("change_not_followed")
