"""The control process, from its parts: what is decided, and what is learnt from reports."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from coalmine import lifecycle
from coalmine.addresses import check_free
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2, control_pb2_grpc
from coalmine.exposition import Exposition
from coalmine.health import Health
from coalmine.lifecycle import Stop
from coalmine.reflection import reflect
from coalmine.span_export import CountedSpans, exporter_for, resource
from coalmine.telemetry import ROUTER_SERVICE
from coalmine_router.channels import CONTROL_SERVER_OPTIONS, Channels
from coalmine_router.config import RouterConfig
from coalmine_router.control.plane import SERVICES as CONTROL_SERVICES
from coalmine_router.control.plane import ControlPlane
from coalmine_router.observer.mismatches import Mismatches
from coalmine_router.observer.observer import Observer


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What `router control` is given; `socket` is a unix: target for proxies here, or ""."""

    config: RouterConfig
    socket: str
    grace_s: float


async def control(settings: ControlSettings, stop: Stop) -> None:
    """Serve the control API, the table feed and the reports until `stop`. Raises StartError."""
    config, registry = settings.config, CollectorRegistry()
    check_free(config.control.listen)
    async with contextlib.AsyncExitStack() as stack:
        http = stack.enter_context(_exposed(config.http, registry, stop))
        channels = await stack.enter_async_context(_channels())
        plane = await stack.enter_async_context(_plane(config, channels, registry))
        observer = await stack.enter_async_context(_observer(config, plane, channels, registry))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [tasks.create_task(plane.run()), tasks.create_task(observer.run())]
        server = _control_server(plane, observer)
        health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        address = await lifecycle.listen(server, config.control.listen)
        if settings.socket:
            lifecycle.bind(server, settings.socket)
        await server.start()
        lifecycle.announce(control=address, http=http)
        await stop.wait()
        plane.end_streams()
        await lifecycle.drain(server, health, grace_s=settings.grace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.grace_s):
                await observer.settled()
        for task in background:
            task.cancel()


@contextlib.contextmanager
def _exposed(address: str, registry: CollectorRegistry, stop: Stop) -> Iterator[str]:
    exposition = Exposition(address, registry, lambda: not stop.asked)
    exposition.start()
    try:
        yield exposition.address
    finally:
        exposition.stop()


@contextlib.asynccontextmanager
async def _channels() -> AsyncIterator[Channels]:
    channels = Channels()
    try:
        yield channels
    finally:
        await channels.close()


@contextlib.asynccontextmanager
async def _plane(
    config: RouterConfig, channels: Channels, registry: CollectorRegistry
) -> AsyncIterator[ControlPlane]:
    plane = await ControlPlane.open(
        config, channels=channels, clock=SystemClock(), registry=registry
    )
    try:
        yield plane
    finally:
        await plane.close()


@contextlib.asynccontextmanager
async def _observer(
    config: RouterConfig, plane: ControlPlane, channels: Channels, registry: CollectorRegistry
) -> AsyncIterator[Observer]:
    exporter = exporter_for(config.control.state / "traces")
    spans = CountedSpans(exporter) if exporter else None
    store = Mismatches(config.control.state / "mismatches.db")
    try:
        yield Observer(
            tables=plane.table,
            routes={route.name: route for route in config.routes},
            channels=channels,
            spans=spans,
            resource=resource(ROUTER_SERVICE),
            registry=registry,
            store=store,
            clock=SystemClock(),
            rng=random.Random(os.urandom(16)),  # noqa: S311 - span ids, no secrets
        )
    finally:
        await store.close()
        if spans:
            await asyncio.to_thread(spans.shutdown)


def _control_server(plane: ControlPlane, observer: Observer) -> grpc.aio.Server:
    server = grpc.aio.server(options=list(CONTROL_SERVER_OPTIONS))
    plane.add_to(server, observer)
    control_pb2_grpc.add_ReportsServicer_to_server(observer.servicer(), server)
    reflect(server, (*CONTROL_SERVICES, "coalmine.control.v1.Reports"), (control_pb2,))
    return server
