"""An observer with everything around it real but small: for tests of the whole."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine_router.channels import Channels
from coalmine_router.config.file import RouterConfig
from coalmine_router.observer.mismatches import Mismatches
from coalmine_router.observer.observer import Observer, Spans
from coalmine_router.observer.shadow import ShadowLimits
from tests.doubles.reports import settings


@dataclass
class Observing:
    """An observer that runs, and a proxy's side of its stream."""

    observer: Observer
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
        self.observer.describe(route, status)
        return status

    def compared(self) -> int:
        """Return how many copies have come to an outcome."""
        return sum(
            each.match + each.mismatch + each.error + each.skipped
            for each in self.status().comparisons
        )

    async def settled(self, copies: int, timeout_s: float = 10.0) -> pb.RouteStatus:
        """Return the status once so many copies have an outcome or were given up."""
        async with asyncio.timeout(timeout_s):
            while True:
                status = self.status()
                dropped = sum(sum(each.dropped.values()) for each in status.shadows)
                if self.compared() + dropped >= copies:
                    return status
                await asyncio.sleep(0.005)  # the counts tell nobody that they changed

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of a series; None where there is none."""
        return self.registry.get_sample_value(f"coalmine_router_{name}", labels)


@asynccontextmanager
async def observing(
    config: RouterConfig,
    folder: Path,
    *,
    spans: Spans | None = None,
    limits: ShadowLimits | None = None,
) -> AsyncIterator[Observing]:
    """Run an observer behind a real gRPC server until the block ends."""
    table = config.table()
    registry, store = CollectorRegistry(), Mismatches(folder / "m.sqlite")
    channels = Channels(SystemClock())
    observer = Observer(
        tables=lambda: table,
        routes=settings(config),
        channels=channels,
        spans=spans,
        resource=Resource.create({"service.name": "coalmine-router"}),
        registry=registry,
        store=store,
        clock=SystemClock(),
        rng=random.Random(7),
        limits=limits,
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 26)])
    pb_grpc.add_ReportsServicer_to_server(observer.servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    client = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", 1 << 26)]
    )
    try:
        async with _running(observer), client:
            await server.start()
            yield Observing(observer, config, registry, pb_grpc.ReportsStub(client))
    finally:
        await server.stop(None)
        await channels.close()
        await store.close()


@asynccontextmanager
async def _running(observer: Observer) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(observer.run())
        await asyncio.sleep(0)  # run begins
        try:
            yield
        finally:
            task.cancel()
