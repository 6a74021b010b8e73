"""The proxy, from its parts: assign, forward, reply, report."""

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coalmine.access.certificate_dates import (
    CertificateDates,
    CertificateFile,
    caller_files,
    listener_files,
)
from coalmine.access.target import Target
from coalmine.clock import SystemClock
from coalmine.control.v1.control_pb2_grpc import TableFeedStub
from coalmine.errors import StartError, reason_of
from coalmine.listener.stream_limit import StreamRefused
from coalmine.process import lifecycle, machine
from coalmine.process.exposition import exposing
from coalmine.process.lifecycle import Stop
from coalmine.trace_context import HeadSampler, sampler_from
from coalmine_router.backends.registry import Backends
from coalmine_router.backends.resolve import Resolver
from coalmine_router.proxy.link import ControlLink
from coalmine_router.proxy.listener import DataListener, ListenerSettings
from coalmine_router.proxy.offered_methods import OfferedMethods
from coalmine_router.proxy.outbox import Outbox
from coalmine_router.proxy.reporter import Reporter, open_stream
from coalmine_router.proxy.routing import routing_of
from coalmine_router.proxy.service import DataPlane
from coalmine_router.proxy.subscriber import Subscriber
from coalmine_router.state.saved_table import FILE
from coalmine_router.state.state_folder import open_state, raise_if_wrong_place
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

# A backend that says nothing holds a proxy's start up so long.
_WARM_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What `router proxy` is given."""

    control: Target
    listener: ListenerSettings
    state: Path
    # Where /metrics and health answer; "" for nowhere.
    http: str
    grace_s: float


async def run_proxy(settings: ProxySettings, stop: Stop) -> None:
    """Serve the data port until `stop`. Raises StartError."""
    proxy_id, clock = secrets.token_hex(6), SystemClock()
    rng = random.Random(os.urandom(16))  # noqa: S311 - shares and span ids, no secrets
    backends = Backends(clock=clock, rng=rng, resolver=Resolver())
    reporter = Reporter(Outbox(proxy_id), clock)
    # A token is this port's own: a backend has no use for it, and might keep it.
    plane = DataPlane(
        report=reporter.offer,
        sampler=_sampler_from_environment(),
        rng=rng,
        drop_authorization=settings.listener.tokens is not None,
    )

    def swap_table(table: RouteTable) -> None:
        backends.follow(table)
        plane.route_by(routing_of(table, plane.routing, backends, rng.random))

    subscriber = Subscriber(proxy_id, _make_table_path(settings.state), swap_table, backends, clock)
    routes = OfferedMethods(plane, subscriber.serving.is_set)
    listener = DataListener(settings.listener, routes, clock)
    link = ControlLink(settings.control)
    subscriber.start_from_disk()
    figures = ProxyFigures(subscriber.serving.is_set)
    certificates = CertificateDates(_certificates(settings), "coalmine_router", clock)
    turned_away = StreamRefused("coalmine_router_proxy", *listener.limits)
    async with (
        _exposing_metrics(settings.http, figures, (certificates, turned_away), stop) as http,
        asyncio.TaskGroup() as tasks,
    ):
        coroutines = (
            backends.run(),
            subscriber.run(lambda states: TableFeedStub(link.channel()).Follow(states)),
            reporter.run(link.wait_until_connected, lambda: open_stream(link.channel())),
            link.follow_files(),
            listener.follow_tokens(),
            certificates.keep_logging(),
            machine.keep_giving_memory_back(lambda: not plane.admission.in_flight),
        )
        background = [tasks.create_task(each) for each in coroutines]
        if await lifecycle.wait_unless_stopped(stop, _wait_until_ready(subscriber, backends)):
            data = await listener.open()
            figures.is_open = True
            lifecycle.announce(data=data, **({"http": http} if http else {}))
            await stop.wait()
        await listener.close(settings.grace_s, plane.gate, plane.refuse)
        for task in background:
            task.cancel()
    await link.close()
    await backends.close()


class ProxyFigures(Collector):
    """What one proxy shows: whether it takes calls, and knows a table."""

    def __init__(self, knows_table: Callable[[], bool]) -> None:
        self.is_open = False
        self._knows_table = knows_table

    def why_not(self) -> str:
        """Return why it doesn't serve; "" where it does."""
        if not self._knows_table():
            return "it knows no table"
        return "" if self.is_open else "the data port isn't open"

    def collect(self) -> Iterable[Metric]:
        """Return it as metrics."""
        return (
            GaugeMetricFamily(
                "coalmine_router_proxy_serving",
                "Whether this proxy takes calls and knows a table.",
                value=not self.why_not(),
            ),
        )


@contextlib.asynccontextmanager
async def _exposing_metrics(
    address: str, figures: ProxyFigures, beside: Sequence[Collector], stop: Stop
) -> AsyncIterator[str]:
    """Yield where /metrics and health answer until the end; "" where there is no address."""
    if not address:
        yield ""
        return
    registry = CollectorRegistry()
    for each in (figures, *beside):
        registry.register(each)

    def why_not_ready() -> str:
        return "the proxy ends" if stop.is_asked else figures.why_not()

    with exposing(address, registry, lambda: not why_not_ready(), why_not_ready) as http:
        yield http


def _certificates(settings: ProxySettings) -> list[CertificateFile]:
    """Return the certificate files of the data port, and of the way to the control process.

    Those of the backends are told of by the control process.
    """
    return [*listener_files(settings.listener.tls), *caller_files(settings.control.tls)]


async def _wait_until_ready(subscriber: Subscriber, backends: Backends) -> None:
    """Return once there is a table, and its backends are connected or it is known why not."""
    await subscriber.serving.wait()
    await backends.wait_until_warm(_WARM_S)


def _sampler_from_environment() -> HeadSampler:
    try:
        return sampler_from(os.environ)
    except ValueError as error:
        raise StartError(str(error)) from None


def _make_table_path(state: Path) -> Path:
    try:
        open_state(state)
    except OSError as error:
        raise_if_wrong_place(state, error)
        _log.error("state_folder_unusable", folder=str(state), error=reason_of(error))
    return state / FILE
