"""A proxy as the control process sees it: follows tables, says which it serves."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import TableFeedStub


class FollowingProxy:
    """Follows while `run` runs; keeps every table it is sent.

    Where it does not answer, it says once who it is and then no more. With `refuses`, it serves
    by none of the tables and says why.
    """

    def __init__(
        self, proxy_id: str, *, answers: bool = True, refuses: str = "", revision: int = 0
    ) -> None:
        self._proxy_id = proxy_id
        self._answers = answers
        self._refuses = refuses
        self.revision = revision
        self.tables: list[pb.RouteTable] = []
        self._states: asyncio.Queue[pb.ProxyState] = asyncio.Queue(maxsize=1_000)
        self._changed = asyncio.Condition()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Follow until the stream ends. Raises AioRpcError where it ends with an error."""
        self._say()
        async for table in TableFeedStub(channel).Follow(self._said()):
            await self._take(table)

    async def serves(self, revision: int, timeout_s: float = 10.0) -> None:
        """Return once it has been sent a table of that revision or later."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(
                lambda: bool(self.tables) and self.tables[-1].revision >= revision
            )

    async def reaches(self, *reached: pb.VariantReach) -> None:
        """Say what it reaches."""
        await self._states.put(
            pb.ProxyState(proxy_id=self._proxy_id, revision=self.revision, reach=reached)
        )

    async def _take(self, table: pb.RouteTable) -> None:
        self.tables.append(table)
        if not self._refuses:
            self.revision = table.revision
        if self._answers:
            self._say(self._refuses)
        async with self._changed:
            self._changed.notify_all()

    def _say(self, refused: str = "") -> None:
        self._states.put_nowait(
            pb.ProxyState(
                proxy_id=self._proxy_id,
                revision=self.revision,
                refused=refused,
                refused_revision=self.tables[-1].revision if refused else 0,
            )
        )

    async def _said(self) -> AsyncIterator[pb.ProxyState]:
        while True:
            yield await self._states.get()
