"""The control process as a proxy sees it: pushes tables, takes states and reports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from tests.doubles.lifetime import Lifetime
from tests.doubles.waiting import eventually


class ControlProcess(
    Lifetime, control_pb2_grpc.TableFeedServicer, control_pb2_grpc.ReportsServicer
):
    """`async with ControlProcess() as control:` listens on `control.address`.

    It can be stopped and started again on the same port. With `deaf` set, reports are not read;
    with `mute`, they are not acknowledged; with `refusing`, that is their stream's end.
    """

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self.states: list[pb.ProxyState] = []
        self.batches: list[pb.ReportBatch] = []
        self.deaf = False
        self.mute = False
        self.refusing: grpc.StatusCode | None = None
        self._table: pb.RouteTable | None = None
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    @property
    def reports(self) -> list[pb.Report]:
        return [report for batch in self.batches for report in batch.reports]

    async def start(self) -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        control_pb2_grpc.add_TableFeedServicer_to_server(self, server)
        control_pb2_grpc.add_ReportsServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port(self.address)}"
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def push(self, table: pb.RouteTable) -> None:
        self._table = table
        await self._tell()

    async def wait(self, reached: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Return when `reached` is true; looked at after each message."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(reached)

    async def Follow(
        self, request_iterator: AsyncIterator[pb.ProxyState], context: Any
    ) -> AsyncIterator[pb.RouteTable]:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(request_iterator))
            try:
                sent = None
                while True:
                    async with self._changed:
                        await self._changed.wait_for(lambda: self._table is not sent)  # noqa: B023
                    sent = self._table
                    assert sent is not None
                    yield sent
            finally:
                listening.cancel()

    async def Send(
        self, request_iterator: AsyncIterator[pb.ReportBatch], context: Any
    ) -> AsyncIterator[pb.ReportAck]:
        await eventually(lambda: not self.deaf, timeout_s=60.0)
        async for batch in request_iterator:
            self.batches.append(batch)
            await self._tell()
            if self.refusing:
                await context.abort(self.refusing)
            if not self.mute:
                yield pb.ReportAck(number=batch.number)

    async def _listen(self, states: AsyncIterator[pb.ProxyState]) -> None:
        async for state in states:
            self.states.append(state)
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
