"""Callers that keep idle connections alive by pings, as often as gRPC's guides say."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.doubles.processes import Started
from tests.doubles.router_setup import configuration, router

_PINGS_MS = 5_000
# A server allows two pings too many, and sends away who sends a third: that would be after 15 s.
_IDLE_S = 22.0
_OPTIONS = (
    ("grpc.keepalive_time_ms", _PINGS_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def test_callers_who_ping_every_five_seconds_keep_their_idle_streams(
    server: Started, tmp_path: Path
) -> None:
    with router(configuration(tmp_path, server.address("grpc"))) as running:
        ports = [server.address("grpc"), running.address("data"), running.address("control")]
        with ThreadPoolExecutor(len(ports)) as pool:
            ends = list(pool.map(_end_of_an_idle_stream, ports))
    assert ends == [grpc.StatusCode.DEADLINE_EXCEEDED] * len(ports)


def _end_of_an_idle_stream(address: str) -> grpc.StatusCode | None:
    """Return how a stream ends on which nothing is said until its deadline."""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            for _ in HealthStub(channel).Watch(HealthCheckRequest(), timeout=_IDLE_S):
                pass
        except grpc.RpcError as error:
            return error.code()
    return None
