"""The router's processes, each from its parts: the table of contents.

run      a supervisor that keeps one control process and N proxies        supervisor.py
proxy    the hot path: assign, forward, reply, report                     proxy/
control  decisions (control/) and what is learnt from reports (observer/)
"""

import asyncio
import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from coalmine import lifecycle
from coalmine.addresses import bound_address, check_free, reserve
from coalmine.control.v1 import control_pb2_grpc
from coalmine.errors import StartError
from coalmine.inference.pool import POOL
from coalmine.lifecycle import MESSAGE_BYTES_MAX, Stop
from coalmine.trace_context import HeadSampler, sampler_from
from coalmine_router.channels import Channels
from coalmine_router.config import RouterConfig
from coalmine_router.proxy import methods
from coalmine_router.proxy.reporter import Reporter
from coalmine_router.proxy.routing import routing_of
from coalmine_router.proxy.service import SERVICE, DataPlane
from coalmine_router.proxy.subscriber import Subscriber
from coalmine_router.supervisor import Command, Supervisor
from coalmine_router.table import RouteTable

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
        supervisor = Supervisor(
            Command("control", _control_arguments(settings, control, http)),
            [
                Command(f"proxy-{n}", _proxy_arguments(settings, data, control))
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


def _control_arguments(settings: RunSettings, control: str, http: str) -> list[str]:
    return [
        *("control", "--config", str(settings.config_file)),
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
    reporter = Reporter(proxy_id)
    plane = DataPlane(report=reporter.offer, sampler=_sampler(), rng=rng)

    def swap(table: RouteTable) -> None:
        plane.routing = routing_of(table, plane.routing, channels, rng)

    subscriber = Subscriber(proxy_id, _table_file(settings.state), swap)
    health = health_aio.HealthServicer()
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
        await lifecycle.drain(server, health, grace_s=settings.grace_s)
        for task in background:
            task.cancel()
    await channels.close()


async def _serve_data(
    server: grpc.aio.Server, health: health_aio.HealthServicer, settings: ProxySettings
) -> None:
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


def _data_server(
    plane: DataPlane, health: health_aio.HealthServicer, ready: Callable[[], bool]
) -> grpc.aio.Server:
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
    enable_server_reflection((SERVICE, "grpc.health.v1.Health", REFLECTION), server, pool=POOL)
    return server


def _control_channel(address: str) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = [
        # A report carries the bodies of a request and its answer.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    return grpc.aio.insecure_channel(address, options=options)
