"""Answers that nobody reads: counted until the caller is gone, and refused over the bound."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from coalmine.inference import MODEL_INFER
from coalmine_router.table import Limits
from coalmine_server.config import Bounds
from tests.doubles.oip_backend import Answer, Gate, OipBackend
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.raw_http2 import UnreadCall, unread_call
from tests.doubles.server_rig import infer_request, pixels, serving
from tests.doubles.split_route import REQUEST, assert_all_let_out, ended, split_route, table_of
from tests.doubles.stream_backend import STREAM, stream_backend
from tests.doubles.waiting import eventually
from tests.models import write_repository

INFER = f"/{MODEL_INFER}"
KIB = 1024
ANSWER = Answer(bytes(64 * KIB))
SMALL = Answer(b"small")
# Four answers of 64 KiB, which take that twice, don't fit into it beside their requests.
BYTES_MAX = 8 * 64 * KIB
NONE = Limits()
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@contextlib.asynccontextmanager
async def unread_calls(address: str, count: int) -> AsyncIterator[list[UnreadCall]]:
    """Yield so many calls, each asked and not read."""
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(unread_call(address, INFER)) for _ in range(count)]
        for each in calls:
            each.send(REQUEST, last=True)
        yield calls


@pytest.mark.parametrize(
    ("route", "total"), [(Limits(bytes_max=BYTES_MAX), NONE), (NONE, Limits(bytes_max=BYTES_MAX))]
)
async def test_a_proxy_refuses_answers_once_unread_ones_fill_the_room_until_their_callers_go(
    route: Limits, total: Limits
) -> None:
    gate = Gate(ANSWER.body)
    async with (
        OipBackend(gate) as backend,
        ProxyRig(
            table_of(backend.address, backend.address, split_route(0, limits=route), limits=total)
        ) as proxy,
    ):
        async with unread_calls(proxy.address, 7) as calls:
            await backend.wait_seen(7)
            gate.open()
            answered = [await each.answered() for each in calls]
            assert answered.count(True) == 3
            refused = [each for each in proxy.reports if each.turned_away]
            assert {(each.turned_away, each.status_code) for each in refused} == {
                ("bytes", EXHAUSTED.value[0])
            }
            seen = await ended(proxy.infer(REQUEST))
            assert (seen.code, seen.is_routers) == (EXHAUSTED, True)
            assert "requests and unread answers in flight hold" in seen.message
            # There is room for others, and no variant is charged.
            backend.script = lambda _: SMALL
            assert (await ended(proxy.infer(REQUEST))).body == SMALL.body
            backend.script = gate
            assert {call.status_code for each in proxy.reports for call in each.attempts} == {0}
        await eventually(lambda: proxy.plane.admission.bytes == 0)
        assert (await ended(proxy.infer(REQUEST))).body == ANSWER.body
        await eventually(lambda: proxy.plane.admission.bytes == 0)
        await assert_all_let_out(proxy)


async def test_a_call_that_is_alone_gets_its_answer_however_large() -> None:
    async with (
        OipBackend(lambda _: ANSWER) as backend,
        ProxyRig(
            table_of(
                backend.address,
                backend.address,
                split_route(0, limits=Limits(bytes_max=len(REQUEST))),
            )
        ) as proxy,
    ):
        for _ in range(3):
            assert (await ended(proxy.infer(REQUEST))).body == ANSWER.body
            await eventually(lambda: proxy.plane.admission.bytes == 0)


async def test_an_unread_answer_is_given_up_at_its_callers_deadline() -> None:
    async with (
        OipBackend(lambda _: ANSWER) as backend,
        ProxyRig(table_of(backend.address, backend.address, split_route(0))) as proxy,
        unread_call(proxy.address, INFER, [(b"grpc-timeout", b"500m")]) as call,
    ):
        call.send(REQUEST, last=True)
        assert await call.answered()
        assert proxy.plane.admission.unread_bytes > 0
        await eventually(lambda: proxy.plane.admission.unread_bytes == 0)


async def test_an_unread_answer_of_a_stream_is_counted_until_the_caller_goes() -> None:
    async with (
        stream_backend() as backend,
        ProxyRig(table_of(backend.address, backend.address, split_route(0))) as proxy,
    ):
        async with unread_call(proxy.address, f"/{STREAM}") as call:
            call.send(REQUEST)
            assert await call.answered()
            await eventually(lambda: proxy.plane.admission.bytes > len(REQUEST))
            # A wrong request ends the stream: it waits for the answer to be read.
            call.send(infer_request("another", pixels()).SerializeToString())
            await eventually(lambda: backend.streams[0].is_half_closed)
            assert proxy.plane.admission.bytes > len(REQUEST)
        await eventually(lambda: proxy.plane.admission.bytes == 0)
        await eventually(lambda: proxy.plane.admission.in_flight == 0)
        await assert_all_let_out(proxy)


async def test_a_server_refuses_answers_once_unread_ones_fill_the_room_until_their_callers_go(
    tmp_path: Path,
) -> None:
    request = infer_request("digits", pixels()).SerializeToString()
    bounds = Bounds(bytes_in_flight=4 * len(request))
    write_repository(tmp_path)
    async with serving(tmp_path, bounds=bounds) as rig:
        async with contextlib.AsyncExitStack() as stack:
            answered = []
            for _ in range(8):
                call = await stack.enter_async_context(unread_call(rig.address, INFER))
                call.send(request, last=True)
                answered.append(await call.answered())
            assert 2 <= answered.count(True) < 8
            with pytest.raises(grpc.aio.AioRpcError, match="unread answers of") as refused:
                await rig.infer("digits", pixels())
            assert refused.value.code() is EXHAUSTED
        async with asyncio.timeout(10):
            while "coalmine_server_in_flight_bytes 0.0" not in await rig.metrics():
                pass
        assert (await rig.infer("digits", pixels()))["logits"].shape == (1, 10)
