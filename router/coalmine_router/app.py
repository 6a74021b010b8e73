"""The router's processes, each from its parts: the table of contents.

run      a supervisor that keeps one control process and N proxies        supervisor.py
proxy    the hot path: assign, forward, reply, report                     proxy/
control  decisions (control/) and what is learnt from reports (observer/)
"""

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from coalmine import lifecycle
from coalmine.addresses import bound_address, check_free, reserve
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2, control_pb2_grpc
from coalmine.errors import StartError
from coalmine.exposition import Exposition
from coalmine.health import Health
from coalmine.inference import inference_pb2
from coalmine.lifecycle import MESSAGE_BYTES_MAX, Stop
from coalmine.reflection import reflect
from coalmine.span_export import CountedSpans, exporter_for, resource
from coalmine.telemetry import ROUTER_SERVICE
from coalmine.trace_context import HeadSampler, sampler_from
from coalmine_router.channels import Channels
from coalmine_router.config import RouterConfig
from coalmine_router.control.plane import SERVICES as CONTROL_SERVICES
from coalmine_router.control.plane import ControlPlane
from coalmine_router.observer.mismatches import Mismatches
from coalmine_router.observer.observer import Observer
from coalmine_router.proxy import methods
from coalmine_router.proxy.exchange import COPY_BYTES_MAX
from coalmine_router.proxy.reporter import Reporter
from coalmine_router.proxy.routing import routing_of
from coalmine_router.proxy.service import MODEL_INFER, SERVICE, DataPlane
from coalmine_router.proxy.subscriber import Subscriber
from coalmine_router.supervisor import Command, Supervisor
from coalmine_router.table import RouteTable

# A batch may end with a report that carries the bodies of a request and its answer.
REPORTS_BYTES_MAX: Final = 2 * COPY_BYTES_MAX

_SOCKET_PATH_MAX: Final = 100
# For the copies of the last requests, when the control process ends.
_LAST_COPIES_S: Final = 5.0
_CONNECTION_AGE_MS: Final = 5 * 60 * 1_000

# ---------------------------------------------------------------- run


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `router run` is given."""

    config_file: Path
    config: RouterConfig
    workers: int
    grace_s: float


async def run(settings: RunSettings, stop: Stop) -> None:
    """Keep one control process and the proxies until `stop`. Raises StartError."""
    config = settings.config
    check_free(config.listen)
    # Held, not listened on: the port stays ours while proxies come and go.
    with reserve(config.listen, shared=True) as data_port:
        data = bound_address(data_port)
        control = _chosen(config.control.listen)
        http = _chosen(config.http)
        socket = _socket(config.control.state)
        supervisor = Supervisor(
            Command("control", _control_arguments(settings, control, http, socket)),
            [
                Command(f"proxy-{n}", _proxy_arguments(settings, data, socket or control))
                for n in range(settings.workers)
            ],
            grace_s=settings.grace_s,
        )
        await supervisor.run(
            stop, lambda _: lifecycle.announce(data=data, control=control, http=http)
        )


def _chosen(address: str) -> str:
    """Return `address` with a real port: it must be the same when the process is restarted."""
    with reserve(address, shared=False) as held:
        return bound_address(held)


def _socket(state: Path) -> str:
    """Return a Unix socket's target in the state folder; "" where the path is too long for one."""
    path = state.resolve() / "control.sock"
    return f"unix:{path}" if len(os.fsencode(path)) <= _SOCKET_PATH_MAX else ""


def _control_arguments(settings: RunSettings, control: str, http: str, socket: str) -> list[str]:
    return [
        *("control", "--config", str(settings.config_file), "--socket", socket),
        *("--listen", control, "--http", http, "--grace", f"{settings.grace_s}s"),
    ]


def _proxy_arguments(settings: RunSettings, data: str, control: str) -> list[str]:
    return [
        *("proxy", "--control", control, "--listen", data, "--shared-port"),
        *("--state", str(settings.config.control.state), "--grace", f"{settings.grace_s}s"),
    ]


# ---------------------------------------------------------------- proxy


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What `router proxy` is given."""

    control: str
    listen: str
    state: Path
    shared_port: bool
    grace_s: float


async def proxy(settings: ProxySettings, stop: Stop) -> None:
    """Serve the data port until `stop`. Raises StartError."""
    proxy_id = secrets.token_hex(6)
    rng = random.Random(os.urandom(16))  # noqa: S311 - shares and span ids, no secrets
    channels = Channels()
    reporter = Reporter(proxy_id, MODEL_INFER)
    plane = DataPlane(report=reporter.offer, sampler=_sampler(), rng=rng)

    def swap(table: RouteTable) -> None:
        plane.routing = routing_of(table, plane.routing, channels, rng.random)

    subscriber = Subscriber(proxy_id, _table_file(settings.state), swap)
    health = Health()
    server = _data_server(plane, health, subscriber.serving.is_set)
    subscriber.start_from_disk()
    async with _control_channel(settings.control) as control, asyncio.TaskGroup() as tasks:
        feed = control_pb2_grpc.TableFeedStub(control)
        reports = control_pb2_grpc.ReportsStub(control)
        background = [
            tasks.create_task(subscriber.run(feed.Follow)),
            tasks.create_task(reporter.run(control.channel_ready, reports.Send)),
        ]
        if await lifecycle.unless_stopped(stop, subscriber.serving.wait()):
            await _serve_data(server, health, settings)
            await stop.wait()
        await lifecycle.drain(server, health, grace_s=settings.grace_s, refuse=plane.refuse)
        for task in background:
            task.cancel()
    await channels.close()


async def _serve_data(server: grpc.aio.Server, health: Health, settings: ProxySettings) -> None:
    address = await lifecycle.listen(server, settings.listen, shared=settings.shared_port)
    await server.start()
    for service in ("", SERVICE):
        await lifecycle.set_serving(health, service, serving=True)
    lifecycle.announce(data=address)


def _sampler() -> HeadSampler:
    try:
        return sampler_from(os.environ)
    except ValueError as error:
        raise StartError(str(error)) from None


def _table_file(state: Path) -> Path:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"state folder {state}: {error.strerror}") from None
    return state / "route-table.pb"


def _data_server(plane: DataPlane, health: Health, ready: Callable[[], bool]) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            # The port is shared by connection, not by call: connections must move now and then.
            ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
        ]
    )
    server.add_generic_rpc_handlers((methods.handlers(plane, ready),))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflect(server, (SERVICE,), (inference_pb2,))
    return server


def _control_channel(address: str) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", REPORTS_BYTES_MAX),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    return grpc.aio.insecure_channel(address, options=options)


# ---------------------------------------------------------------- control


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
            server.add_insecure_port(settings.socket)
        await server.start()
        lifecycle.announce(control=address, http=http)
        await stop.wait()
        plane.end_streams()
        await lifecycle.drain(server, health, grace_s=settings.grace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(settings.grace_s, _LAST_COPIES_S)):
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
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", REPORTS_BYTES_MAX),
            ("grpc.so_reuseport", 0),  # or a second router would silently take half of the calls
        ]
    )
    plane.add_to(server, observer)
    control_pb2_grpc.add_ReportsServicer_to_server(observer.servicer(), server)
    reflect(server, (*CONTROL_SERVICES, "coalmine.control.v1.Reports"), (control_pb2,))
    return server
