"""Calls and streams that their callers give up: nothing of them stays in gRPC's memory."""

import asyncio
import contextlib
from typing import Any

import pytest

from coalmine.listener.call_cancellation import await_answer, cancel_call
from tests.doubles.native_memory import is_told, left_by_each
from tests.doubles.oip_backend import OipBackend, hanging
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.server_rig import infer_request, pixels
from tests.doubles.split_route import split_route, table_of
from tests.doubles.stream_backend import STREAM, in_turn, stream_backend
from tests.doubles.waiting import eventually

pytestmark = pytest.mark.skipif(not is_told(), reason="glibc alone tells what is in use")

CALLS = 800
# gRPC would keep 970 bytes of a unary call, and 110 of a read; the rest of a process varies.
LEFT_MAX = 60

BODY = infer_request("digits", pixels()).SerializeToString()


async def test_a_unary_call_through_a_proxy_leaves_nothing_behind() -> None:
    async with OipBackend(hanging()) as backend:
        table = table_of(backend.address, backend.address, split_route(0))
        async with ProxyRig(table) as proxy:

            async def call_and_hang_up() -> None:
                seen = len(backend.seen)
                waiting = asyncio.ensure_future(await_answer(proxy.infer(BODY)))
                await backend.wait_seen(seen + 1)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting

            async def nothing_is_kept() -> None:
                await eventually(lambda: not proxy.plane.admission.in_flight)
                await eventually(lambda: backend.cancelled >= len(backend.seen))
                backend.cancelled = 0
                backend.seen.clear()
                proxy.reports.clear()

            left = await left_by_each(call_and_hang_up, nothing_is_kept, CALLS)
    assert left < LEFT_MAX


async def test_a_stream_through_a_proxy_leaves_nothing_behind() -> None:
    async with stream_backend(in_turn) as backend:
        table = table_of(backend.address, backend.address, split_route(0))
        async with ProxyRig(table) as proxy:
            method: Any = proxy.channel.stream_stream(f"/{STREAM}")

            async def nothing_is_kept() -> None:
                await eventually(lambda: not proxy.plane.admission.in_flight)
                backend.streams.clear()
                proxy.reports.clear()

            left = await left_by_each(lambda: answered_once(method()), nothing_is_kept, CALLS)
    assert left < LEFT_MAX


async def answered_once(call: Any) -> None:
    """Ask once; hang up while the other side waits for more."""
    await call.write(BODY)
    assert isinstance(await call.read(), bytes)
    cancel_call(call)
