"""Follows the control process's tables; keeps the last on disk, enough to start without it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import grpc
import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import CoalmineError
from coalmine_router.snapshot import table_from
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 0.2

Follow = Callable[
    [AsyncIterator[pb.ProxyState]], grpc.aio.StreamStreamCall[pb.ProxyState, pb.RouteTable]
]


class Subscriber:
    """Takes each table whole or not at all, says which it serves, and saves it.

    `serving` is set once there is a table to serve by.
    """

    def __init__(self, proxy_id: str, saved: Path, swap: Callable[[RouteTable], None]) -> None:
        self._proxy_id = proxy_id
        self._saved = saved
        self._swap = swap
        self._revision = 0
        self._is_lost = False
        self.serving = asyncio.Event()
        # At most one: what this proxy serves now replaces what it served before.
        self._states: asyncio.Queue[pb.ProxyState] = asyncio.Queue(maxsize=1)

    def start_from_disk(self) -> bool:
        """Serve by the table kept on disk; return whether there is a good one."""
        try:
            table = table_from(pb.RouteTable.FromString(self._saved.read_bytes()))
        except FileNotFoundError:
            return False
        except Exception as error:  # noqa: BLE001 - a torn file is no reason not to start
            _log.warning("saved_table_unusable", file=str(self._saved), error=str(error))
            return False
        if not table.routes:
            _log.warning("saved_table_unusable", file=str(self._saved), error="no routes")
            return False
        self._take(table)
        _log.info("serving_saved_table", revision=table.revision)
        return True

    async def run(self, follow: Follow) -> None:
        """Follow until cancelled; on a broken stream, begin another."""
        while True:
            try:
                await self._follow(follow)
            except grpc.aio.AioRpcError as error:
                if not self._is_lost:
                    _log.warning("control_lost", revision=self._revision, why=error.details())
                self._is_lost = True
            await asyncio.sleep(_RETRY_S)

    async def _follow(self, follow: Follow) -> None:
        self._say(refused="")
        async for message in follow(self._spoken()):
            self._receive(message)

    async def _spoken(self) -> AsyncIterator[pb.ProxyState]:
        while True:
            yield await self._states.get()

    def _receive(self, message: pb.RouteTable) -> None:
        self._is_lost = False
        try:
            table = table_from(message)
        except CoalmineError as error:
            _log.error("table_refused", revision=message.revision, error=str(error))
            self._say(refused=f"revision {message.revision}: {error}")
            return
        self._take(table)
        self._say(refused="")
        self._save(message)

    def _take(self, table: RouteTable) -> None:
        self._swap(table)
        self._revision = table.revision
        self.serving.set()

    def _say(self, *, refused: str) -> None:
        if self._states.full():
            self._states.get_nowait()
        self._states.put_nowait(
            pb.ProxyState(proxy_id=self._proxy_id, revision=self._revision, refused=refused)
        )

    def _save(self, message: pb.RouteTable) -> None:
        draft = self._saved.with_name(f"{self._saved.name}.{os.getpid()}")
        try:
            draft.write_bytes(message.SerializeToString())
            draft.replace(self._saved)
        except OSError as error:
            _log.warning("table_not_saved", file=str(self._saved), error=str(error))
