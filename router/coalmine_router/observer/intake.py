"""Takes the proxies' reports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine.status import Context, answering
from coalmine_router.observer.totals import ReportTotals

_log = structlog.get_logger(__name__)

# A batch can hold many reports; the control API must get its turn between them.
_REPORTS_A_TURN: Final = 64


class Intake(pb_grpc.ReportsServicer):
    """The service that proxies send to. `observe` takes one report and returns soon."""

    def __init__(self, totals: ReportTotals, observe: Callable[[pb.Report], None]) -> None:
        self._totals = totals
        self._observe = observe

    @answering
    async def Send(self, request_iterator: object, _context: Context) -> pb.SendSummary:
        """Take batches until the proxy ends the stream; return how many reports came."""
        received = 0
        # The stubs allow for the synchronous server, too.
        async for batch in cast("AsyncIterator[pb.ReportBatch]", request_iterator):
            self._totals.tell(batch)
            received += len(batch.reports)
            await self._take(batch)
        return pb.SendSummary(received=received)

    async def _take(self, batch: pb.ReportBatch) -> None:
        for number, report in enumerate(batch.reports, 1):
            self._totals.received += 1
            self._observed(report)
            if number % _REPORTS_A_TURN == 0:
                await asyncio.sleep(0)

    def _observed(self, report: pb.Report) -> None:
        try:
            self._observe(report)
        except Exception:  # noqa: BLE001 - one odd report must not cost the others of its stream
            self._totals.unreadable += 1
            _log.exception("report_unreadable", route=report.route)
