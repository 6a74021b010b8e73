"""An observer with everything around it real but small: for tests of the whole."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from coalmine.clock import Clock, SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine_router.config.file import RouterConfig
from coalmine_router.observer.comparison.comparer import ComparerLimits
from coalmine_router.observer.copies.copy_limits import CopyLimits
from coalmine_router.observer.output.span_writer import NoSpans, SpanSink
from coalmine_router.observer.plane import ObserverPlane, Surroundings
from tests.doubles.backends_rig import reaching
from tests.doubles.reports import settings
from tests.doubles.running import running


@dataclass
class Observing:
    """An observer that runs, and a proxy's side of its stream."""

    plane: ObserverPlane
    config: RouterConfig
    registry: CollectorRegistry
    stub: "pb_grpc.ReportsAsyncStub"
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _offered: int = 0

    async def send(self, *reports: pb.Report, proxy_id: str = "p1") -> int:
        """Send one batch on a stream of its own; return its number once it is acknowledged."""
        self._offered += len(reports)
        batch = pb.ReportBatch(
            proxy_id=proxy_id,
            reports=reports,
            offered_total=self._offered,
            number=next(self._numbers),
        )
        return await self.send_batch(batch)

    async def send_batch(self, *batches: pb.ReportBatch) -> int:
        """Send batches on one stream; return the last number that is acknowledged."""
        acknowledged = [ack.number async for ack in self.stub.Send(iter(batches))]
        return acknowledged[-1]

    def status(self) -> pb.RouteStatus:
        route = self.config.table().route("digits")
        names = [variant.name for variant in route.variants]
        status = pb.RouteStatus(variants=[pb.VariantStatus(name=name) for name in names])
        self.plane.queries.describe(route, status)
        return status

    def compared(self) -> int:
        """Return how many copies have come to a comparison."""
        return sum(each.compared for each in self.status().shadows)

    async def settled(self, copies: int, timeout_s: float = 10.0) -> pb.RouteStatus:
        """Return the status once so many copies were compared, or given up."""
        async with asyncio.timeout(timeout_s):
            while True:
                status = self.status()
                if sum(map(_ended, status.shadows)) >= copies:
                    return status
                await asyncio.sleep(0.005)  # the counts tell nobody that they changed

    async def mismatches(self, output: str = "", **wanted: Any) -> list[pb.Mismatch]:
        """Return the kept mismatches of the route, without bodies."""
        asked = pb.ListMismatchesRequest(route="digits", output=output, **wanted)
        return await self.plane.queries.mismatches(asked)

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of a series; None where there is none."""
        return self.registry.get_sample_value(f"coalmine_router_{name}", labels)


def _ended(copies: pb.ShadowCounts) -> int:
    return copies.compared + copies.uncompared + sum(copies.dropped.values())


@asynccontextmanager
async def observing(
    config: RouterConfig,
    folder: Path,
    *,
    spans: SpanSink | None = None,
    limits: CopyLimits | None = None,
    pool: ComparerLimits | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Observing]:
    """Run an observer behind a real gRPC server until the block ends."""
    table = config.table()
    registry = CollectorRegistry()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 26)])
    port = server.add_insecure_port("127.0.0.1:0")
    client = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", 1 << 26)]
    )
    async with reaching(table, is_lenient=True, may_lose_stable=True) as backends:
        plane = ObserverPlane(
            Surroundings(
                folder=folder,
                tables=lambda: table,
                backends=backends,
                routes=settings(config),
                clock=clock or SystemClock(),
                rng=random.Random(7),
                registry=registry,
                resource=Resource.create({"service.name": "coalmine-router"}),
                spans=spans or NoSpans(),
                copy_limits=limits or CopyLimits(),
                pool_limits=pool or ComparerLimits(),
            )
        )
        pb_grpc.add_ReportsServicer_to_server(plane.servicer(), server)
        try:
            await plane.open()
            async with running(plane.run()), client:
                await server.start()
                yield Observing(plane, config, registry, pb_grpc.ReportsStub(client))
        finally:
            await server.stop(None)
            await plane.close()
