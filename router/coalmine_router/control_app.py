"""The control process, from its parts: what is decided, and what is learnt from reports."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final, cast

import grpc
import structlog
from prometheus_client import CollectorRegistry

from coalmine.access.certificate_dates import CertificateDates
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2_grpc
from coalmine.errors import StartError
from coalmine.listener.reflection import ReflectedMethods
from coalmine.listener.stream_limit import StreamRefused
from coalmine.process import lifecycle, machine
from coalmine.process.addresses import check_free
from coalmine.process.exposition import exposing
from coalmine.process.lifecycle import Stop
from coalmine.spans.span_export import ENDS_S, open_span_outputs
from coalmine.spans.span_resource import resource
from coalmine.telemetry import ROUTER_SERVICE
from coalmine_router.backends.registry import Backends
from coalmine_router.backends.resolve import Resolver
from coalmine_router.config.file import RouterConfig
from coalmine_router.control.listener import ControlListener, Offer
from coalmine_router.control.plane import ControlPlane
from coalmine_router.files import certificate_files
from coalmine_router.observer.copies.copy_limits import EJECTION
from coalmine_router.observer.output.span_writer import NoSpans, SpanSink
from coalmine_router.observer.plane import ObserverPlane, Surroundings, check_rules
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

# Of its grace period, with its spans: after twice as long the supervisor kills it.
_ENDED_WITHIN: Final = 1.5


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What `router control` is given; `socket` is a unix: target for proxies here, or "".

    `stands_by`: another one has the state and the ports yet, and the parent says when it let go.
    """

    config: RouterConfig
    socket: str
    grace_s: float
    stands_by: bool = False


async def run_control(settings: ControlSettings, stop: Stop) -> None:
    """Serve the control API, the table feed and the reports until `stop`. Raises StartError.

    What needs neither the state nor a port comes first: one that stands by has done it already.
    """
    config, registry = settings.config, CollectorRegistry()
    table = config.table()
    listener = ControlListener(config.control, settings.socket, SystemClock())
    registry.register(StreamRefused("coalmine_router_control", *listener.limits))
    async with contextlib.AsyncExitStack() as stack:
        http = stack.enter_context(_exposing_metrics(config.http, registry, stop))
        backends = await stack.enter_async_context(_running_backends())
        if settings.stands_by and not await _stand_by(config, table, backends, stop):
            return
        check_free(config.control.listen)
        spans = await stack.enter_async_context(_opened_span_sink(settings, stop))
        stack.callback(lifecycle.yield_place)
        plane = await stack.enter_async_context(_opened_plane(config, table, backends, registry))
        observer = await stack.enter_async_context(
            _running_observer(settings, plane, backends, registry, spans)
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        offers = _offers_of(plane, observer, listener)
        address = await listener.open(*offers, needs_socket=plane.is_usable)
        background = [tasks.create_task(plane.run()), tasks.create_task(observer.run())]
        background.append(tasks.create_task(listener.follow_tokens()))
        background.append(
            tasks.create_task(_register_certificates(config, registry).keep_logging())
        )
        background.append(tasks.create_task(machine.keep_giving_memory_back(lambda: True)))
        background.append(tasks.create_task(listener.follow_socket()))
        lifecycle.announce(control=address, http=http)
        await stop.wait()
        await _finish_calls(plane, observer, listener, settings.grace_s)
        for task in background:
            task.cancel()


async def _stand_by(
    config: RouterConfig, table: RouteTable, backends: Backends, stop: Stop
) -> bool:
    """Prepare for the configuration, stand by, and return whether this process may serve now.

    Raises StartError where the rules are wrong: the one that serves has lost nothing by it.
    """
    backends.follow(table)
    await check_rules(table, config.routes, backends, config.control.state)
    return await lifecycle.stand_by(stop)


async def _finish_calls(
    plane: ControlPlane, observer: ObserverPlane, listener: ControlListener, grace_s: float
) -> None:
    """Learn from what came in, while operators are answered yet; then take no more calls."""
    observer.end_streams()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await observer.wait_until_idle()
    plane.end_streams()
    await listener.close(grace_s)


def _register_certificates(config: RouterConfig, registry: CollectorRegistry) -> CertificateDates:
    """Return what tells when the control port's certificates end, and those of the backends."""
    dates = CertificateDates(certificate_files(config), "coalmine_router", SystemClock())
    registry.register(dates)
    return dates


@contextlib.contextmanager
def _exposing_metrics(address: str, registry: CollectorRegistry, stop: Stop) -> Iterator[str]:
    with exposing(address, registry, lambda: not stop.is_asked) as http:
        yield http


@contextlib.asynccontextmanager
async def _running_backends() -> AsyncIterator[Backends]:
    """Yield the backends of whatever table is in force, connected until the end."""
    backends = Backends(
        clock=SystemClock(),
        rng=random.Random(os.urandom(16)),  # noqa: S311 - who gets the next copy, no secrets
        resolver=Resolver(),
        rules=EJECTION,
        is_lenient=True,
        may_lose_stable=True,
    )
    async with backends.running():
        yield backends


@contextlib.asynccontextmanager
async def _opened_plane(
    config: RouterConfig, table: RouteTable, backends: Backends, registry: CollectorRegistry
) -> AsyncIterator[ControlPlane]:
    plane = await ControlPlane.open(
        config.control.state, table, backends=backends, clock=SystemClock(), registry=registry
    )
    try:
        yield plane
    finally:
        await plane.close()


@contextlib.asynccontextmanager
async def _opened_span_sink(settings: ControlSettings, stop: Stop) -> AsyncIterator[SpanSink]:
    """Yield where spans go; at the end those that wait are exported, with what is left of grace."""
    spans = open_span_outputs(settings.config.control.state / "traces", at_once=False)
    try:
        yield spans or NoSpans()
    finally:
        if spans:
            left_s = max(ENDS_S, stop.left_s(settings.grace_s))
            most_s = stop.left_s(_ENDED_WITHIN * settings.grace_s)
            await asyncio.to_thread(spans.shutdown, min(left_s, most_s))


@contextlib.asynccontextmanager
async def _running_observer(
    settings: ControlSettings,
    plane: ControlPlane,
    backends: Backends,
    registry: CollectorRegistry,
    spans: SpanSink,
) -> AsyncIterator[ObserverPlane]:
    config = settings.config
    observer = ObserverPlane(
        Surroundings(
            folder=config.control.state,
            tables=plane.table,
            backends=backends,
            routes={route.name: route for route in config.routes},
            spans=spans,
            resource=resource(ROUTER_SERVICE),
            registry=registry,
            clock=SystemClock(),
            rng=random.Random(os.urandom(16)),  # noqa: S311 - span ids, no secrets
        )
    )
    try:
        if not settings.stands_by:  # it has done so
            await _check_rules(plane, config, backends)
        await observer.open()
        yield observer
    finally:
        await observer.close()


async def _check_rules(plane: ControlPlane, config: RouterConfig, backends: Backends) -> None:
    """Raise StartError for wrong rules; without a state, they are logged: the router serves on."""
    try:
        await check_rules(plane.table(), config.routes, backends, config.control.state)
    except StartError as error:
        if plane.is_usable:
            raise
        _log.error("rules_name_no_output", error=str(error))


def _offers_of(
    plane: ControlPlane, observer: ObserverPlane, listener: ControlListener
) -> tuple[Offer, Offer]:
    """Return what operators are offered, and what proxies are."""

    def offer_to_operators(methods: ReflectedMethods) -> None:
        plane.add_control_to(methods, observer.queries, listener.audit)

    def offer_to_proxies(methods: ReflectedMethods) -> None:
        plane.add_feed_to(methods)
        server = cast("grpc.aio.Server", methods)
        control_pb2_grpc.add_ReportsServicer_to_server(observer.servicer(), server)

    return offer_to_operators, offer_to_proxies
