"""Processes from start to exit code; each runs on its own, because it takes signals and a loop."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from coalmine.errors import StartError
from coalmine.process.addresses import split_address
from coalmine.process.lifecycle import bind, drain, listen, set_serving

PROLOGUE = """
import asyncio, sys
from coalmine.errors import StartError
from coalmine.process.lifecycle import Stop, announce, run
from coalmine.process.log import configure_logging
configure_logging("test")
"""


@contextmanager
def process(body: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `body` in a process of its own, with pipes."""
    with subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def ready(started: subprocess.Popen[str]) -> Any:
    assert started.stdout is not None
    return json.loads(started.stdout.readline())


SERVES = """
async def main(stop):
    announce(grpc="127.0.0.1:8001")
    print(await stop.wait(), flush=True)

sys.exit(run(main))
"""

NEVER_STOPS = """
async def main(stop):
    announce()
    await stop.wait()
    print("asked", flush=True)
    await asyncio.Event().wait()

sys.exit(run(main))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_asks_a_process_to_stop_and_it_exits_with_zero(name: str) -> None:
    with process(SERVES) as started:
        assert ready(started)["grpc"] == "127.0.0.1:8001"
        started.send_signal(signal.Signals[name])
        out, err = started.communicate(timeout=30)

    assert (started.returncode, out) == (0, f"{name}\n"), err


def test_the_line_that_announces_a_process_holds_its_pid() -> None:
    with process(SERVES) as started:
        assert ready(started) == {"event": "ready", "pid": started.pid, "grpc": "127.0.0.1:8001"}


def test_a_second_signal_ends_at_once_a_process_that_doesnt_stop() -> None:
    with process(NEVER_STOPS) as started:
        ready(started)
        started.send_signal(signal.SIGTERM)
        assert started.stdout is not None
        assert started.stdout.readline() == "asked\n"
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 1


def test_a_start_error_is_one_line_and_exit_code_two() -> None:
    body = "async def main(stop): raise StartError('no such folder')\nsys.exit(run(main))"
    with process(body) as started:
        out, err = started.communicate(timeout=30)

    assert (started.returncode, out, err) == (2, "", "coalmine: no such folder\n")


def test_a_start_error_deep_inside_task_groups_is_one_line_all_the_same() -> None:
    body = """
async def fails():
    raise StartError("port in use")

async def main(stop):
    async with asyncio.TaskGroup() as outer:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fails())
        outer.create_task(asyncio.Event().wait())

sys.exit(run(main))
"""
    with process(body) as started:
        out, err = started.communicate(timeout=30)

    assert (started.returncode, out, err) == (2, "", "coalmine: port in use\n")


def test_an_unexpected_error_is_a_traceback_and_not_exit_code_two() -> None:
    body = "async def main(stop): raise ValueError('bug')\nsys.exit(run(main))"
    with process(body) as started:
        _, err = started.communicate(timeout=30)

    assert started.returncode == 1
    assert "ValueError: bug" in err


def test_a_process_tied_to_its_parent_stops_when_standard_input_closes() -> None:
    with process(SERVES.replace("run(main)", "run(main, with_parent=True)")) as started:
        ready(started)
        assert started.stdin is not None
        started.stdin.write("what a parent says is not read\n")
        started.stdin.flush()
        out, err = started.communicate(timeout=30)

    assert (started.returncode, out) == (0, "parent gone\n"), err


def test_the_first_reason_to_stop_is_the_one_that_counts() -> None:
    body = """
async def main(stop):
    assert not stop.is_asked
    stop.ask("a step failed")
    stop.ask("SIGTERM")
    assert stop.is_asked
    print(await stop.wait())

sys.exit(run(main))
"""
    with process(body) as started:
        assert started.communicate(timeout=30)[0] == "a step failed\n"


def test_a_process_without_standard_input_can_start_others() -> None:
    body = """
async def main(stop):
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    print((await child.communicate(b"heard"))[0].decode())

sys.exit(run(main))
"""
    with process(body, preexec_fn=lambda: os.close(0)) as started:
        out, err = started.communicate(timeout=30)

    assert (started.returncode, out) == (0, "heard\n"), err


# ---------------------------------------------------------------- listening and draining


async def test_a_socket_path_that_is_taken_is_a_start_error(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("a file")
    server = grpc.aio.server()
    with pytest.raises(StartError, match="cannot listen on unix:"):
        bind(server, f"unix:{tmp_path}/control.sock")
    await server.stop(None)


async def test_listening_on_port_zero_gives_the_real_port() -> None:
    server = grpc.aio.server()
    address = await listen(server, "127.0.0.1:0")

    assert address.startswith("127.0.0.1:")
    assert split_address(address)[1] > 0
    await server.stop(None)


async def test_a_port_that_another_server_listens_on_cant_be_listened_on() -> None:
    first, second = grpc.aio.server(), grpc.aio.server()
    address = await listen(first, "127.0.0.1:0")
    await first.start()

    with pytest.raises(StartError, match=f"cannot listen on {address}: address already in use"):
        await listen(second, address)
    await first.stop(None)
    await second.stop(None)


async def test_servers_of_ours_may_share_a_port() -> None:
    first, second = grpc.aio.server(), grpc.aio.server()
    address = await listen(first, "127.0.0.1:0", shared=True)
    await first.start()

    assert await listen(second, address, shared=True) == address
    await first.stop(None)
    await second.stop(None)


async def test_health_says_whether_a_service_serves_and_a_drain_ends_it() -> None:
    server, health = grpc.aio.server(), health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    address = await listen(server, "127.0.0.1:0")
    await server.start()
    request = health_pb2.HealthCheckRequest(service="model/digits")

    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        await set_serving(health, "model/digits", serving=True)
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        await set_serving(health, "model/digits", serving=False)
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING

        await drain(server, health, grace_s=0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(request)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
