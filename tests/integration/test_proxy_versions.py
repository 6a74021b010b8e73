"""A version that a caller names beside the variant's own: told, or refused where the route says."""

from typing import Any, Self

import grpc
import pytest

from coalmine.inference import inference_pb2 as oip
from tests.doubles.oip_backend import SERVICE, OipBackend, answering, failing
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import (
    PIN_CANARY,
    PIXELS,
    assert_all_let_out,
    ended,
    split_route,
    table_of,
)
from tests.doubles.stream_backend import stream_backend

KEY = "x-coalmine-requested-version"
OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND


def naming(version: str) -> bytes:
    return oip.ModelInferRequest(model_name="digits", model_version=version).SerializeToString()


class TwoVersionsRig:
    """`async with TwoVersionsRig(strict=…):` stable is version 1, canary 2, all to stable."""

    def __init__(self, *, canary_bp: int = 0, canary: Any = None, **parts: Any) -> None:
        self.stable = OipBackend(answering(logits=PIXELS))
        self.canary = OipBackend(canary or answering(logits=PIXELS))
        self._route = split_route(canary_bp, **parts)

    async def __aenter__(self) -> Self:
        await self.stable.__aenter__()
        await self.canary.__aenter__()
        table = table_of(self.stable.address, self.canary.address, self._route)
        self.proxy = await ProxyRig(table).__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await assert_all_let_out(self.proxy)
        await self.proxy.__aexit__(None, None, None)
        await self.canary.__aexit__(None, None, None)
        await self.stable.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("3", "3"),
        ("production", "production"),
        ("1", None),
        ("", None),
        ("é\n3", "??3"),
        ("9" * 5_000, "9" * 128),
    ],
)
async def test_the_version_that_was_replaced_is_told(version: str, told: str | None) -> None:
    async with TwoVersionsRig() as rig:
        seen = await ended(rig.proxy.infer(naming(version)))
        assert (seen.code, seen.variant, seen.trailing.get(KEY)) == (OK, "stable", told)
        sent = oip.ModelInferRequest.FromString(rig.stable.seen[-1].body)
        assert sent.model_version == "1"


@pytest.mark.parametrize(
    ("version", "code"),
    [("3", NOT_FOUND), ("production", NOT_FOUND), ("01", NOT_FOUND), ("1", OK), ("", OK)],
)
async def test_a_strict_route_answers_for_no_other_version(
    version: str, code: grpc.StatusCode
) -> None:
    async with TwoVersionsRig(strict_version=True) as rig:
        seen = await ended(rig.proxy.infer(naming(version)))
        assert (seen.code, seen.is_routers, len(rig.stable.seen)) == (
            code,
            code is NOT_FOUND,
            int(code is OK),
        )
        assert KEY not in seen.trailing
        pinned = await ended(rig.proxy.infer(naming("2"), metadata=PIN_CANARY))
        assert (pinned.code, pinned.variant) == (OK, "canary")


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
@pytest.mark.parametrize("strict", [False, True])
async def test_questions_about_a_model_go_by_the_same_rule(method: str, strict: bool) -> None:
    question = oip.ModelReadyRequest(name="digits", version="3").SerializeToString()
    async with TwoVersionsRig(strict_version=strict) as rig:
        seen = await ended(rig.proxy.ask(f"{SERVICE}/{method}", question))
        if strict:
            assert (seen.code, seen.is_routers, rig.stable.seen) == (NOT_FOUND, True, [])
        else:
            assert seen.trailing[KEY] == "3"


async def test_stable_does_not_stand_in_with_another_version_where_the_route_is_strict() -> None:
    loading = failing(grpc.StatusCode.UNAVAILABLE, "loading")
    parts: dict[str, Any] = {"canary_bp": 10_000, "fallback": True, "canary": loading}
    async with TwoVersionsRig(strict_version=True, **parts) as rig:
        seen = await ended(rig.proxy.infer(naming("2")))
        assert (seen.code, seen.variant) == (grpc.StatusCode.UNAVAILABLE, "canary")
        assert (await ended(rig.proxy.infer(naming("")))).variant == "stable"
    async with TwoVersionsRig(**parts) as rig:
        seen = await ended(rig.proxy.infer(naming("2")))
        assert (seen.code, seen.variant, seen.trailing[KEY]) == (OK, "stable", "2")


@pytest.mark.parametrize("versions", [("3",), ("1", "3")])
async def test_a_strict_streams_messages_are_all_looked_at(versions: tuple[str, ...]) -> None:
    route = split_route(0, strict_version=True)
    async with (
        stream_backend() as one,
        ProxyRig(table_of(one.address, one.address, route)) as proxy,
    ):
        stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        stream = proxy.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        call = stream((naming(each) for each in versions), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:  # what was asked before is answered first
                pass
        assert await call.code() is NOT_FOUND
        assert dict(await call.trailing_metadata())["x-coalmine-origin"] == "router"
