"""The repository looked at now and then: what changed on disk is loaded, what is gone unloaded."""

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

import structlog

from coalmine.errors import CoalmineError, LoadFailed, StartError
from coalmine.process.blocking_thread import in_thread
from coalmine_server.repository import Repository, Stamp

_log = structlog.get_logger(__name__)

_AT_ONCE_MAX: Final = 32  # models; further ones come with a later look
_WAIT_S: Final = 1.0


class RepositoryChanges(Protocol):
    """What follows the disk."""

    async def load(self, name: str) -> None:
        """Make a model what its folder says."""
        ...

    async def remove(self, name: str) -> None:
        """Serve and know a model no more."""
        ...


class Poller:
    """Follows a repository. A model that can't be loaded is tried again when its files change."""

    def __init__(self, repository: Repository, changes: RepositoryChanges) -> None:
        self._repository = repository
        self._changes = changes
        self._seen: dict[str, Stamp] = {}
        self._unreadable = ""
        self._following: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Take what is there now as known."""
        self._seen = await in_thread(self._repository.stamps)

    async def run(self, every_s: float) -> None:
        """Look every `every_s` seconds, or never where that is 0, until cancelled."""
        try:
            while every_s:
                await asyncio.sleep(every_s)
                await self.look()
            await asyncio.Event().wait()
        finally:
            for task in self._following.values():
                task.cancel()

    async def look(self) -> None:
        """Look once, and follow what has changed since the last time.

        A model that takes longer than a second to follow goes on beside later looks, which leave it
        alone but for its removal: one that hangs holds up no other.
        """
        try:
            found = await in_thread(self._repository.stamps)
        except (OSError, StartError) as error:
            self._tell_unreadable(str(error))
            return
        self._unreadable = ""
        for name in [each for each in self._seen if each not in found]:
            del self._seen[name]
            self._begin(name, self._changes.remove(name))
        for name, stamp in found.items():
            if self._seen.get(name) != stamp and self._has_room_for(name):
                self._seen[name] = stamp
                self._begin(name, self._changes.load(name))
        if self._following:
            await asyncio.wait(self._following.values(), timeout=_WAIT_S)

    def _has_room_for(self, name: str) -> bool:
        return name not in self._following and len(self._following) < _AT_ONCE_MAX

    def _begin(self, name: str, change: Awaitable[None]) -> None:
        task = asyncio.create_task(self._follow(change))
        self._following[name] = task
        task.add_done_callback(lambda ended: self._forget(name, ended))

    def _forget(self, name: str, ended: asyncio.Task[None]) -> None:
        if self._following.get(name) is ended:  # not where a removal came after it
            del self._following[name]

    def _tell_unreadable(self, reason: str) -> None:
        """Say once why there is nothing to follow; what runs goes on."""
        if reason != self._unreadable:
            _log.warning("repository_unreadable", reason=reason)
        self._unreadable = reason

    async def _follow(self, change: Awaitable[None]) -> None:
        try:
            await change
        except LoadFailed:
            return  # logged where it failed
        except CoalmineError as error:
            _log.warning("change_not_followed", reason=str(error))
        except Exception:  # noqa: BLE001 - a bug of ours, and the other models go on
            _log.exception("change_not_followed")
