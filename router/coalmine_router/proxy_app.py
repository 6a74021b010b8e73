"""The proxy, from its parts: assign, forward, reply, report."""

import asyncio
import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from coalmine import lifecycle
from coalmine.control.v1 import control_pb2_grpc
from coalmine.errors import StartError
from coalmine.health import Health
from coalmine.inference import MODEL_INFER, SERVICE, inference_pb2
from coalmine.lifecycle import Stop
from coalmine.limits import MESSAGE_LIMITS, PENDING_LIMITS
from coalmine.reflection import reflect
from coalmine.trace_context import HeadSampler, sampler_from
from coalmine_router.channels import CONTROL_OPTIONS, Channels
from coalmine_router.proxy import methods
from coalmine_router.proxy.reporter import Reporter
from coalmine_router.proxy.routing import routing_of
from coalmine_router.proxy.service import DataPlane
from coalmine_router.proxy.subscriber import Subscriber
from coalmine_router.table import RouteTable

_CONNECTION_AGE_MS: Final = 5 * 60 * 1_000


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
        await lifecycle.drain(
            server, health, grace_s=settings.grace_s, hold=plane.hold, refuse=plane.refuse
        )
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
            *MESSAGE_LIMITS,
            *PENDING_LIMITS,
            # The port is shared by connection, not by call: connections must move now and then.
            ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
        ]
    )
    server.add_generic_rpc_handlers((methods.handlers(plane, ready),))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflect(server, (SERVICE,), (inference_pb2,))
    return server


def _control_channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=list(CONTROL_OPTIONS))
