"""A proxy's memory has a ceiling, whatever has become of the control process."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from coalmine_router.proxy.outbox import BYTES_MAX
from tests.doubles.oip_backend import INFER, Answer, OipBackend, Seen, echo, request_body
from tests.doubles.processes import Started, started
from tests.doubles.router_setup import configuration

REQUESTS, AT_ONCE = 2_000, 16
PIXELS = np.zeros((1, 50_000), np.float32)
REQUEST = request_body("digits", pixels=PIXELS)
# What waits; its batches; what is under way; and what the allocator keeps.
GROWTH_MAX = BYTES_MAX + 96 * 1024 * 1024


def small(seen: Seen) -> Answer:
    return Answer(b"") if seen.method == INFER else echo(seen)


@contextlib.asynccontextmanager
async def running(*arguments: str | Path, folder: Path) -> AsyncIterator[Started]:
    """Run a process of the router; starting and ending it doesn't hold up the backend here."""
    with contextlib.ExitStack() as stack:
        process = started(*arguments, folder=folder)
        yield await asyncio.to_thread(stack.enter_context, process)
        await asyncio.to_thread(stack.close)


def peak_bytes(process: Started) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the system doesn't say how much memory a process takes")


async def infer(proxy: Started, requests: int) -> None:
    """Send so many requests, some at once; each must be answered."""
    left = iter(range(requests))
    async with grpc.aio.insecure_channel(proxy.address("data")) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{INFER}")

        async def send() -> None:
            for _ in left:
                await call(REQUEST, timeout=20)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(send())


async def accounted(control: str, requests: int) -> pb.ReportCounts:
    """Return the counts once all reports have come in or were given up."""
    async with grpc.aio.insecure_channel(control) as channel, asyncio.timeout(30):
        stub = control_pb2_grpc.RouteControlStub(channel)
        while True:
            request = pb.GetRouteRequest(route="digits")
            counts = (await stub.GetRoute(request, wait_for_ready=True)).reports
            if counts.received + sum(counts.dropped.values()) >= requests:
                return counts
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "stopped"])
async def test_requests_with_bodies_for_a_control_process_that_is_gone_take_bounded_memory(
    tmp_path: Path, fault: signal.Signals
) -> None:
    async with OipBackend(small) as backend:
        file = configuration(tmp_path, backend.address, shadows={"int8": 100})
        control = ("router", "control", "--config", file)
        async with running(*control, folder=tmp_path) as first:
            at, place = first.address("control"), tmp_path / "proxy"
            options = ("--listen", "127.0.0.1:0", "--control", at, "--state", place)
            async with running("router", "proxy", *options, folder=tmp_path) as proxy:
                await infer(proxy, 100)
                await accounted(at, 100)
                before = peak_bytes(proxy)
                first.process.send_signal(fault)
                await infer(proxy, REQUESTS)
                growth = peak_bytes(proxy) - before
                if fault is signal.SIGSTOP:
                    first.process.send_signal(signal.SIGCONT)
                    counts = await accounted(at, REQUESTS + 100)
                else:
                    first.kill()
                    async with running(*control, "--listen", at, folder=tmp_path):
                        counts = await accounted(at, REQUESTS)
    assert REQUESTS * len(REQUEST) > 2 * GROWTH_MAX
    assert growth < GROWTH_MAX, f"{growth / 2**20:.0f} MiB"
    assert counts.offered == counts.received + sum(counts.dropped.values())
