"""TLS, tokens and header limits of the data port, in front of routes that echo."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from coalmine.access.target import Target
from coalmine.access.tls_files import Tls, TlsFiles
from coalmine.clock import SystemClock
from coalmine.inference import SERVICE
from coalmine.process.answer_gate import AnswerGate
from coalmine_router.proxy.listener import METADATA_BYTES_MAX, DataListener, ListenerSettings
from tests.doubles.callers import bearer, outcome, write_tokens
from tests.doubles.certificates import Authority, serial_of, shown_serial

INFER = f"/{SERVICE}/ModelInfer"
OTHER = "/shop.Cart/Add"


class Routes(grpc.GenericRpcHandler):
    """Answers every method with the request, and remembers what came with it."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.entered = asyncio.Event()
        self.released = asyncio.Event()
        self.released.set()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def echoed(request: bytes, context: Any) -> bytes:
            self.methods.append(details.method)
            self.entered.set()
            await self.released.wait()
            return request

        return grpc.unary_unary_rpc_method_handler(echoed)


@contextlib.asynccontextmanager
async def opened(routes: Routes, **settings: Any) -> AsyncIterator[str]:
    """Yield the address of a listener in front of `routes`."""
    listener = DataListener(ListenerSettings("127.0.0.1:0", **settings), routes, SystemClock())
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(listener.follow_tokens())
        try:
            yield await listener.open()
        finally:
            await listener.close(1.0, AnswerGate(), lambda: None)
            following.cancel()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.yaml", "viewer", "caller", "proxy", "operator")


def call(channel: grpc.aio.Channel, method: str, metadata: Any = (), body: bytes = b"") -> Any:
    made: Any = channel.unary_unary(method)
    return made(body, metadata=metadata, timeout=10)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("method", "allowed"),
    [
        (f"/{SERVICE}/ServerLive", {"", "unknown", "viewer", "caller", "proxy", "operator"}),
        *(
            (f"/{SERVICE}/{method}", {"viewer", "caller", "proxy", "operator"})
            for method in ("ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
        ),
        (INFER, {"caller", "proxy", "operator"}),
        (f"/{SERVICE}/ModelStreamInfer", {"caller", "proxy", "operator"}),
        (OTHER, {"caller", "proxy", "operator"}),
    ],
)
async def test_each_role_is_let_in_where_it_may(
    tokens: Path, method: str, allowed: set[str]
) -> None:
    routes = Routes()
    async with (
        opened(routes, tokens=tokens) as address,
        Target(address).open_aio_channel() as channel,
    ):
        found = {
            role: await outcome(call(channel, method, bearer(role) if role else ()))
            for role in ("", "unknown", "viewer", "caller", "proxy", "operator")
        }
    assert {role for role, code in found.items() if code == "OK"} == allowed
    assert len(routes.methods) == len(allowed), "who is refused reaches no route"
    assert found[""] in {"OK", "UNAUTHENTICATED"}
    assert found["viewer"] in {"OK", "PERMISSION_DENIED"}


async def test_a_refusal_is_marked_as_the_routers_own(tokens: Path) -> None:
    async with (
        opened(Routes(), tokens=tokens) as address,
        Target(address).open_aio_channel() as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, INFER, bearer("viewer"), b"\xff not a message")
    assert caught.value.details() == "ModelInfer needs role caller, 'viewer-1' is viewer"
    assert ("x-coalmine-origin", "router") in tuple(caught.value.trailing_metadata())


async def test_health_is_open_to_probes(tokens: Path) -> None:
    async with (
        opened(Routes(), tokens=tokens) as address,
        Target(address).open_aio_channel() as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            found = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_no_route_takes_the_place_of_health_or_reflection() -> None:
    routes = Routes()
    async with opened(routes) as address, Target(address).open_aio_channel() as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        await call(channel, OTHER)
    assert routes.methods == [OTHER]


async def test_a_new_token_is_known_and_an_old_one_is_not_once_the_file_is_another(
    tokens: Path,
) -> None:
    async with (
        opened(Routes(), tokens=tokens) as address,
        Target(address).open_aio_channel() as channel,
    ):
        assert await outcome(call(channel, INFER, bearer("caller"))) == "OK"
        write_tokens(tokens, "operator")
        async with asyncio.timeout(10):
            while await outcome(call(channel, INFER, bearer("caller"))) == "OK":
                pass
        assert await outcome(call(channel, INFER, bearer("operator"))) == "OK"


# ---------------------------------------------------------------- TLS


async def test_with_tls_it_is_called_by_tls_and_by_nothing_else(authority: Authority) -> None:
    pair = authority.server()
    async with opened(Routes(), tls=TlsFiles(pair.cert, pair.key)) as address:
        async with Target(address, Tls(authority.ca)).open_aio_channel() as encrypted:
            assert await outcome(call(encrypted, INFER)) == "OK"
        async with Target(address).open_aio_channel() as plain:
            assert await outcome(call(plain, INFER)) == "UNAVAILABLE"


async def test_with_an_authority_of_callers_each_must_show_a_certificate(
    authority: Authority,
) -> None:
    pair, alice = authority.server(), authority.client("alice")
    async with opened(Routes(), tls=TlsFiles(pair.cert, pair.key, authority.ca)) as address:
        async with Target(address, Tls(authority.ca)).open_aio_channel() as nobody:
            assert await outcome(call(nobody, INFER)) == "UNAVAILABLE"
        async with Target(
            address, Tls(authority.ca, alice.cert, alice.key)
        ).open_aio_channel() as known:
            assert await outcome(call(known, INFER)) == "OK"


async def test_a_new_certificate_is_shown_to_new_connections(authority: Authority) -> None:
    pair = authority.server()
    async with opened(Routes(), tls=TlsFiles(pair.cert, pair.key)) as address:
        first = await shown_serial(address)
        authority.server()
        assert await shown_serial(address) == serial_of(pair.cert.read_bytes()) != first


async def test_listening_to_others_in_plaintext_is_said() -> None:
    listener = DataListener(ListenerSettings("0.0.0.0:0"), Routes(), SystemClock())
    with capture_logs() as logged:
        await listener.open()
        await listener.close(1.0, AnswerGate(), lambda: None)
    (line,) = [each for each in logged if each["event"] == "insecure_listen"]
    assert line["advice"].startswith("anybody may call")


# ---------------------------------------------------------------- header limits


def padded(size: int) -> tuple[tuple[str, str], ...]:
    """Return metadata of so many bytes, as HTTP/2 counts."""
    key = "x-pad"
    return ((key, "x" * (size - len(key) - 32)),)


async def test_metadata_over_the_limit_is_refused_and_disturbs_nobody_else() -> None:
    routes = Routes()
    routes.released.clear()
    async with opened(routes) as address, Target(address).open_aio_channel() as channel:
        waiting = call(channel, INFER, (), b"mine")
        await routes.entered.wait()
        codes = [
            await outcome(call(channel, OTHER, padded(size)))
            for size in (METADATA_BYTES_MAX + 1, 12_000, 20_000, 200_000)
        ]
        routes.released.set()
        assert await waiting == b"mine"
        assert await outcome(call(channel, OTHER)) == "OK", "the connection goes on"
    assert codes == ["RESOURCE_EXHAUSTED"] * 4
    assert routes.methods == [INFER, OTHER]


async def test_metadata_just_under_the_limit_is_taken_each_time() -> None:
    async with opened(Routes()) as address, Target(address).open_aio_channel() as channel:
        # gRPC's own part: path, authority, user agent, timeout, content type and so on.
        under = padded(METADATA_BYTES_MAX - 600)
        codes = {await outcome(call(channel, INFER, under)) for _ in range(50)}
    assert codes == {"OK"}
