"""Sends reports to the control process in batches. No request waits for that."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import structlog

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.proxy.outbox import Outbox

_log = structlog.get_logger(__name__)

_METHOD: Final = "/coalmine.control.v1.Reports/Send"
_BATCH_DELAY_S: Final = 0.025
_RETRY_S: Final = 0.2
_TICK_S: Final = 1.0
_LAST_FLUSH_S: Final = 1.0
# With these the control process refuses a batch. Others tell of its own trouble.
_REFUSALS: Final = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}

ReportStream = grpc.aio.StreamStreamCall[bytes, pb.ReportAck]
Send = Callable[[], ReportStream]
WaitsForConnection = Callable[[], Awaitable[None]]


def open_stream(channel: grpc.aio.Channel) -> ReportStream:
    """Return a new stream of reports. Batches are bytes already."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, pb.ReportAck] = channel.stream_stream(
        _METHOD, request_serializer=None, response_deserializer=pb.ReportAck.FromString
    )
    return method()


class Reporter:
    """An outbox, and the stream that empties it. Not thread-safe: one loop."""

    def __init__(self, outbox: Outbox, clock: Clock, *, tick_s: float = _TICK_S) -> None:
        self._outbox = outbox
        self._clock = clock
        self._tick_s = tick_s
        self._is_ending = False
        self._is_dropping = False
        self._has_some = asyncio.Event()
        self._acknowledged = asyncio.Event()

    def offer(self, report: bytes, bodies: bytes = b"") -> None:
        """Queue a serialised Report; `bodies` are more of its fields.

        Over half full, the outbox leaves out the bodies. When full, it drops and counts.
        """
        if not self._outbox.waiting:
            self._has_some.set()
        self._outbox.offer(report, bodies)

    async def run(self, wait_until_connected: WaitsForConnection, send: Send) -> None:
        """Send batches until cancelled, with a new stream after each break; then flush.

        It sends nothing before there is a connection.
        """
        # Not in a task group: gRPC ends a call whose write is cancelled, and loses the rest.
        sending = asyncio.ensure_future(self._send_until_ended(wait_until_connected, send))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await self._send_rest(sending)
            raise

    async def _send_until_ended(self, wait_until_connected: WaitsForConnection, send: Send) -> None:
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(self._drop_old_forever())
            while not (self._is_ending and self._outbox.is_empty):
                await wait_until_connected()
                await self._run_stream(send())
                if not self._is_ending:
                    await asyncio.sleep(_RETRY_S)
            ticking.cancel()

    async def _send_rest(self, sending: asyncio.Future[None]) -> None:
        """Send the rest, for a moment at most: the process is ending."""
        if self._outbox.is_empty:
            sending.cancel()
        self._is_ending = True
        self._has_some.set()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_LAST_FLUSH_S):
                await sending

    # ------------------------------------------------------------ one stream

    async def _run_stream(self, call: ReportStream) -> None:
        """Send batches and take acknowledgements, until the stream ends or breaks."""
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send_batches(call))
                async for ack in call:
                    self._outbox.acknowledge(ack.number)
                    self._acknowledged.set()
                sending.cancel()
        except* (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if call.done() and await call.code() in _REFUSALS:
                self._outbox.refuse()
        finally:
            call.cancel()

    async def _send_batches(self, call: ReportStream) -> None:
        for batch in self._outbox.unacknowledged_batches():
            await call.write(batch.data)
        while self._outbox.waiting or not self._is_ending:
            await self._has_some.wait()
            await asyncio.sleep(_BATCH_DELAY_S)
            while self._outbox.waiting:
                await self._wait_for_room()
                await call.write(self._outbox.take_batch().data)
            self._has_some.clear()
        await call.done_writing()

    async def _wait_for_room(self) -> None:
        while self._outbox.is_window_full:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    # ------------------------------------------------------------ age

    async def _drop_old_forever(self) -> None:
        while True:
            dropped = self._outbox.dropped.total()
            await asyncio.sleep(self._tick_s)
            self._outbox.drop_old_reports(self._clock.monotonic_ns() / 10**9)
            self._log_dropping(is_dropping=self._outbox.dropped.total() > dropped)

    def _log_dropping(self, *, is_dropping: bool) -> None:
        """Log once when drops of reports begin, and once when they are over."""
        if is_dropping != self._is_dropping:
            event = "dropping_reports" if is_dropping else "no_longer_dropping_reports"
            _log.warning(event, dropped=dict(self._outbox.dropped))
        self._is_dropping = is_dropping
