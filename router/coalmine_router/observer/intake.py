"""Takes the proxies' reports, and acknowledges each batch."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine.errors import InvalidRequest
from coalmine.status import Context, answering
from coalmine_router.observer.totals import ReportTotals
from coalmine_router.open_streams import OpenStreams, write_message

_log = structlog.get_logger(__name__)

STREAMS_MAX: Final = 256
# A batch can hold many reports; the control API must get its turn between them.
_REPORTS_A_TURN: Final = 64
_ID_MAX: Final = 128


class ReportIntake(pb_grpc.ReportsServicer):
    """The service that proxies send to. `observe` takes one report and returns soon."""

    def __init__(
        self,
        totals: ReportTotals,
        observe: Callable[[pb.Report], None],
        *,
        streams_max: int = STREAMS_MAX,
    ) -> None:
        self._totals = totals
        self._observe = observe
        self._streams = OpenStreams("Send", open_max=streams_max)

    @property
    def turned_away(self) -> int:
        """How many streams were refused because too many are open."""
        return self._streams.turned_away

    def end_streams(self) -> None:
        """End all streams: what isn't acknowledged by then comes again to the next process."""
        self._streams.end_all()

    @answering
    async def Send(  # type: ignore[override]  # reads and writes by itself: not a generator
        self, _requests: object, context: Context
    ) -> None:
        """Take batches in, and acknowledge each, until the proxy ends the stream.

        One that came before is acknowledged and not counted again.
        """
        async with self._streams.open():
            while isinstance(batch := await context.read(), pb.ReportBatch):
                _check(batch)
                if self._totals.add_batch(batch):
                    await self._take(batch.reports)
                await write_message(context, pb.ReportAck(number=batch.number))
            if isinstance(batch, InvalidRequest):  # what its bytes were read as
                raise batch

    async def _take(self, reports: Iterable[pb.Report]) -> None:
        left = iter(reports)
        try:
            for number, report in enumerate(left, 1):
                self._hand_on(report)
                if number % _REPORTS_A_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            # The batch is known by its number now: a stream that breaks must not cost what is left.
            for report in left:
                self._hand_on(report)

    def _hand_on(self, report: pb.Report) -> None:
        self._totals.received += 1
        try:
            self._observe(report)
        except Exception:  # noqa: BLE001 - one odd report must not cost the others of its stream
            self._totals.unreadable += 1
            _log.exception("report_unreadable", route=report.route)


def _check(batch: pb.ReportBatch) -> None:
    if not 0 < len(batch.proxy_id) <= _ID_MAX:
        raise InvalidRequest(f"proxy_id: expected 1 to {_ID_MAX} characters")
    if not batch.number:
        raise InvalidRequest(f"proxy '{batch.proxy_id}': batches are numbered from 1")
