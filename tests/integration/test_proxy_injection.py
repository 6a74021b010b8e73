"""Metadata that no gRPC client would send, through the data plane: it adds nothing to a request."""

import numpy as np
import pytest

from coalmine_router.table import Backend, Match, Route, RouteTable, Sticky, Variant
from tests.doubles.oip_backend import INFER, OipBackend, Seen, answering, request_body
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.raw_http2 import call

PIXELS = np.ones((1, 4), np.float32)
REQUEST = request_body("digits", pixels=PIXELS)


# Without it a tracestate is of no trace, and dropped.
PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def table(address: str) -> RouteTable:
    route = Route(
        name="digits",
        match=Match("digits"),
        variants=(Variant("stable", "blue", "", "", 10_000),),
        shadows=(),
        sticky=Sticky("x-user-id"),
        timeout_ns=5 * 10**9,
        pinning=True,
    )
    return RouteTable(revision=1, backends=(Backend("blue", (address,)),), routes=(route,))


def inferred(backend: OipBackend) -> list[Seen]:
    return [each for each in backend.seen if each.method == INFER]


@pytest.mark.parametrize("key", [b"x-a", b"x-user-id", b"x-coalmine-variant", b"tracestate"])
@pytest.mark.parametrize(
    "value",
    [b"a\r\nx-injected: 1", b"a\nx-injected: 1", b"a\0x-injected: 1", b"a\x7f", b"\xff\xfe"],
)
async def test_a_value_with_control_characters_is_refused_and_not_passed_on(
    key: bytes, value: bytes
) -> None:
    async with (
        OipBackend(answering(logits=PIXELS)) as backend,
        ProxyRig(table(backend.address)) as proxy,
    ):
        assert await call(proxy.address, f"/{INFER}", REQUEST, [PARENT, (key, value)]) == "answered"
        assert inferred(backend) == []
        assert await proxy.infer(REQUEST), "others are served on"


@pytest.mark.parametrize(
    "key", [b"x-a\r\nx-injected", b"x a", b"X-Upper", b"x-a:", b"x-\xff", b"x-a\0"]
)
async def test_a_key_that_is_none_is_refused_and_not_passed_on(key: bytes) -> None:
    async with (
        OipBackend(answering(logits=PIXELS)) as backend,
        ProxyRig(table(backend.address)) as proxy,
    ):
        ended = await call(proxy.address, f"/{INFER}", REQUEST, [(key, b"1")])
        assert ended in {"answered", "reset", "closed"}
        assert inferred(backend) == []
        assert await proxy.infer(REQUEST), "others are served on"


async def test_a_traceparent_of_any_bytes_is_not_passed_on() -> None:
    async with OipBackend(answering(logits=PIXELS)) as backend:
        async with ProxyRig(table(backend.address)) as proxy:
            odd = (b"traceparent", b"00-\r\nx-injected: 1")
            assert await call(proxy.address, f"/{INFER}", REQUEST, [odd]) == "answered"
        (seen,) = inferred(backend)
    (sent,) = seen.values("traceparent")
    assert str(sent).isprintable()
    assert seen.values("x-injected") == []
