"""Follows the control process's tables, and keeps the last on disk, to start without it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import grpc
import structlog

from coalmine.access.target import advice_on
from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import CoalmineError, reason_of
from coalmine_router.snapshot import table_from
from coalmine_router.state.disk_outage import DiskOutage
from coalmine_router.state.saved_table import SavedTable
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 0.2
_REACH_S: Final = 1.0
_AGAIN_S: Final = 5.0

Follow = Callable[
    [AsyncIterator[pb.ProxyState]], grpc.aio.StreamStreamCall[pb.ProxyState, pb.RouteTable]
]

# None: the end of a stream.
States = asyncio.Queue[pb.ProxyState | None]


class Reach(Protocol):
    """Has the reach of calls by route and variant, as Backends does."""

    def reach(self) -> Sequence[pb.VariantReach]:
        """Return the reach of now."""
        ...

    def wait_for_reach_change(self) -> Awaitable[None]:
        """Return once it may have changed."""
        ...


class Subscriber:
    """Takes each table whole or not at all, reports which one it serves, and saves it.

    `swap` puts a table in force, or raises CoalmineError and keeps the one before.
    `serving` is set once the proxy has a table.
    """

    def __init__(
        self,
        proxy_id: str,
        saved: Path,
        swap: Callable[[RouteTable], None],
        reach: Reach,
        clock: Clock,
        *,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._proxy_id = proxy_id
        self._saved = SavedTable(saved)
        self._outage = DiskOutage(
            saved, "is not saved", began="table_not_saved", ended="table_saved_again"
        )
        # The table that the disk didn't take.
        self._unsaved: pb.RouteTable | None = None
        self._swap = swap
        self._reach = reach
        self._clock = clock
        self._again_s = again_s
        # When it began to serve by its saved table; None: control sent one, or it has none.
        self._saved_since_ns: int | None = None
        self._reach_said: Sequence[pb.VariantReach] = ()
        self._revision = 0
        self._refused = ""
        self._refused_revision = 0
        # The table that was refused last. A file that it names may be there by now.
        self._refused_table: pb.RouteTable | None = None
        self._is_lost = False
        self._advice = ""
        self.serving = asyncio.Event()
        # At most one: the state of now replaces the one before.
        self._states: States = asyncio.Queue(maxsize=1)

    def start_from_disk(self) -> bool:
        """Serve by the saved table; return whether there is a good one."""
        message = self._saved.read()
        if message is None:
            return False
        self._refused_table = message  # until it is in force
        try:
            self._use_table(table_from(message))
        except CoalmineError as error:
            _log.warning("saved_table_unusable", file=str(self._saved.path), error=str(error))
            return False
        self._saved_since_ns = self._clock.monotonic_ns()
        _log.info("serving_saved_table", revision=message.revision)
        return True

    async def run(self, follow: Follow) -> None:
        """Follow until cancelled. Begin another stream after a broken one."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_forever(follow))
            tasks.create_task(self._send_reach())
            tasks.create_task(self._retry_table_forever())

    async def _follow_forever(self, follow: Follow) -> None:
        while True:
            try:
                await self._follow(follow)
            except grpc.aio.AioRpcError as error:
                self._log_loss(error)
            await asyncio.sleep(_RETRY_S)

    def _log_loss(self, error: grpc.aio.AioRpcError) -> None:
        """Log the reason, once for each loss, and once for each new reason of a refusal."""
        advice = advice_on(error)
        if not self._is_lost or advice not in {"", self._advice}:
            _log.warning(
                "control_lost",
                revision=self._revision,
                code=error.code().name,
                why=error.details(),
                advice=advice,
            )
        self._is_lost, self._advice = True, advice or self._advice

    async def _follow(self, follow: Follow) -> None:
        # For this stream alone: gRPC goes on reading the queue of an ended stream.
        states = self._states = asyncio.Queue(maxsize=1)
        self._send_state()
        try:
            async for message in follow(_queued_states(states)):
                self._receive(message)
        finally:
            _replace_queued(states, None)

    def _receive(self, message: pb.RouteTable) -> None:
        self._is_lost, self._advice = False, ""
        self._saved_since_ns = None
        self._use_or_refuse(message)

    def _use_or_refuse(self, message: pb.RouteTable) -> None:
        try:
            self._use_table(table_from(message))
        except CoalmineError as error:
            self._note_refusal(message, str(error))
            return
        self._send_state()
        self._save_table(message)

    def _note_refusal(self, message: pb.RouteTable, why: str) -> None:
        refused = f"revision {message.revision}: {why}"
        if refused != self._refused:
            _log.error("table_refused", revision=message.revision, error=why)
        self._refused, self._refused_revision = refused, message.revision
        self._refused_table = message
        self._send_state()

    async def _retry_table_forever(self) -> None:
        """Try a refused or unsaved table again at intervals: no other may come for months."""
        while True:
            await asyncio.sleep(self._again_s)
            if self._refused_table is not None:
                self._use_or_refuse(self._refused_table)
            if self._unsaved is not None:
                self._save_table(self._unsaved)

    def _use_table(self, table: RouteTable) -> None:
        self._swap(table)
        self._revision = table.revision
        self._refused, self._refused_revision = "", 0
        self._refused_table = None
        self.serving.set()

    async def _send_reach(self) -> None:
        """Report the reach whenever it changes, at most once a second."""
        while True:
            if self._reach.reach() == self._reach_said:
                await self._reach.wait_for_reach_change()
            else:
                self._send_state()
                await asyncio.sleep(_REACH_S)

    def _send_state(self) -> None:
        self._reach_said = self._reach.reach()
        _replace_queued(
            self._states,
            pb.ProxyState(
                proxy_id=self._proxy_id,
                revision=self._revision,
                refused=self._refused,
                refused_revision=self._refused_revision,
                reach=self._reach_said,
                saved_ns=self._saved_age_ns(),
                trouble=self._outage.trouble,
            ),
        )

    def _saved_age_ns(self) -> int:
        since_ns = self._saved_since_ns
        return 0 if since_ns is None else self._clock.monotonic_ns() - since_ns

    def _save_table(self, message: pb.RouteTable) -> None:
        before = self._outage.trouble
        try:
            self._saved.write(message)
        except OSError as error:
            self._unsaved = message
            self._outage.note_failure(reason_of(error))
        else:
            self._unsaved = None
            self._outage.note_success()
        if self._outage.trouble != before:
            self._send_state()


async def _queued_states(states: States) -> AsyncIterator[pb.ProxyState]:
    while (state := await states.get()) is not None:
        yield state


def _replace_queued(states: States, state: pb.ProxyState | None) -> None:
    if states.full():
        states.get_nowait()
    states.put_nowait(state)
