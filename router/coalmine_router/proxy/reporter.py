"""Tells the control process what was served: bounded, in batches, and never in a request's way."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import grpc
import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.proxy.exchange import Ended
from coalmine_router.proxy.report import write_report

_log = structlog.get_logger(__name__)

BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024
_BATCH_BYTES: Final = 256 * 1024
_BATCH_DELAY_S: Final = 0.010
_RETRY_S: Final = 0.2
_LAST_FLUSH_S: Final = 1.0

ReportStream = grpc.aio.StreamUnaryCall[pb.ReportBatch, pb.SendSummary]
Send = Callable[[], ReportStream]
Connected = Callable[[], Awaitable[None]]


class Reporter:
    """A bounded buffer of requests to report, and the stream that empties it.

    Full, it drops the new report and counts it. Not thread-safe: one loop.
    """

    def __init__(
        self, proxy_id: str, method: str, *, buffer_bytes_max: int = BUFFER_BYTES_MAX
    ) -> None:
        self._proxy_id = proxy_id
        self._method = method
        self._buffer: deque[Ended] = deque()
        self._buffer_bytes = 0
        self._buffer_bytes_max = buffer_bytes_max
        self._offered = 0
        self._sent = 0
        self._ending = False
        self.dropped: Counter[str] = Counter()
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    def offer(self, ended: Ended) -> None:
        """Queue the report of a request, or drop it where the buffer is full."""
        self._offered += 1
        size = ended.held_bytes
        if self._buffer_bytes + size > self._buffer_bytes_max:
            self.dropped["buffer_full"] += 1
            return
        if not self._buffer:
            self._some.set()
        self._buffer.append(ended)
        self._buffer_bytes += size
        if self._buffer_bytes >= _BATCH_BYTES:
            self._enough.set()

    async def run(self, connected: Connected, send: Send) -> None:
        """Send batches until cancelled; on a broken stream, begin another.

        Nothing leaves the buffer before there is a connection.
        """
        while True:
            await connected()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._stream(send())
            await asyncio.sleep(_RETRY_S)

    async def _stream(self, call: ReportStream) -> None:
        # Not in a task group: gRPC ends a call whose write is cancelled, and with it what is left.
        sending = asyncio.ensure_future(self._send(call))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await self._finish(sending)
            raise

    async def _send(self, call: ReportStream) -> None:
        async for batch in self._batches():
            await self._write(call, batch)
        await call.done_writing()
        await call

    async def _write(self, call: ReportStream, batch: pb.ReportBatch) -> None:
        try:
            await call.write(batch)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            self.dropped["connection_lost"] += len(batch.reports)
            _log.warning("reports_lost", reports=len(batch.reports))
            raise
        self._sent += len(batch.reports)

    async def _batches(self) -> AsyncIterator[pb.ReportBatch]:
        """Yield batches; once the process is ending, what is left and no more."""
        while not self._ending or self._buffer:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BATCH_DELAY_S):
                    await self._enough.wait()
            yield self._take()

    def _take(self) -> pb.ReportBatch:
        batch = pb.ReportBatch(
            proxy_id=self._proxy_id,
            offered_total=self._offered,
            dropped_total=self.dropped,
            sent_total=self._sent,
        )
        taken = 0
        while self._buffer and taken < _BATCH_BYTES:
            ended = self._buffer.popleft()
            taken += ended.held_bytes
            write_report(batch.reports.add(), self._method, ended)
        self._buffer_bytes -= taken
        if not self._buffer:
            self._some.clear()
        if self._buffer_bytes < _BATCH_BYTES:
            self._enough.clear()
        return batch

    async def _finish(self, sending: asyncio.Future[None]) -> None:
        """Let what is left be sent, for a moment at most: the process is ending."""
        self._ending = True
        self._some.set()
        self._enough.set()
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(_LAST_FLUSH_S):
                await sending
