"""Reports taken in as the control process does it, without the rest of one; it can be killed."""

from collections import Counter

import grpc

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine_router.observer.intake import ReportIntake
from coalmine_router.observer.totals import ReportTotals
from tests.doubles.lifetime import Lifetime


class RestartableIntake(Lifetime):
    """`async with RestartableIntake() as control:` takes reports on `control.address`.

    `totals` and `seen` (how often each report, by its start, came in) are of the life that runs;
    `start` begins another, which knows nothing of those before it.
    """

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self.totals = ReportTotals()
        self.seen: Counter[int] = Counter()
        self._server: grpc.aio.Server | None = None

    async def stop(self) -> None:
        """End at once, whatever is under way."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def start(self) -> None:
        """Serve at the same address, as a process without memory."""
        self.totals, self.seen = ReportTotals(), Counter()
        seen = self.seen

        def observe(report: pb.Report) -> None:
            seen[report.started_ns] += 1

        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        pb_grpc.add_ReportsServicer_to_server(ReportIntake(self.totals, observe), server)
        self.address = f"127.0.0.1:{server.add_insecure_port(self.address)}"
        await server.start()
        self._server = server
