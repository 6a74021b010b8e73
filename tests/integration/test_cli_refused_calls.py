"""Verbs while nobody listens for a moment: asked again, unless a router may have done it."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import add_RouteControlServicer_to_server
from coalmine_client.cli.root import program
from tests.doubles.control import FakeControl

VERBS = ["routes", "status digits --watch", "weights digits canary=10"]
# In process, where a line isn't charged for the start of Python.
SAYS_WITHIN_S = 3.0


@pytest.fixture
def address() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"127.0.0.1:{held.getsockname()[1]}"


def run(line: str, address: str) -> tuple[Result, float]:
    began_s = time.monotonic()
    result = CliRunner().invoke(program(), line.split(), env={"COALMINE_CONTROL": address})
    return result, time.monotonic() - began_s


def changes_of(control: FakeControl) -> list[pb.SetWeightsRequest]:
    return [each for each in control.requests if isinstance(each, pb.SetWeightsRequest)]


def listening(control: FakeControl, address: str) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(4))
    add_RouteControlServicer_to_server(control, server)
    server.add_insecure_port(address)
    server.start()
    return server


@contextmanager
def coming(control: FakeControl, address: str, after_s: float) -> Iterator[None]:
    """Listen at an address after a while."""
    come: list[grpc.Server] = []
    timer = threading.Timer(after_s, lambda: come.append(listening(control, address)))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        come[0].stop(None).wait()


@pytest.mark.parametrize("line", VERBS)
def test_a_router_that_comes_back_within_a_second_has_missed_nothing(
    line: str, address: str
) -> None:
    control = FakeControl()
    with coming(control, address, 1.0):
        result, took_s = run(line, address)
    assert "cannot reach" not in result.stderr
    assert control.requests.count(control.requests[-1]) == 1
    assert took_s < SAYS_WITHIN_S


@pytest.mark.parametrize("line", VERBS)
def test_one_that_does_not_come_back_is_told_in_time(line: str, address: str) -> None:
    result, took_s = run(line, address)
    assert "cannot reach the router's control API" in result.stderr
    assert "refused" in result.stderr
    assert 1.0 < took_s < SAYS_WITHIN_S


def test_a_change_that_was_sent_is_never_sent_again(address: str) -> None:
    """The router dies over it, having done who knows what; another one is there at once."""
    again = FakeControl()
    servers: list[grpc.Server] = []

    class Dies(FakeControl):
        def SetWeights(self, request: Any, context: Any) -> Any:
            self.requests.append(request)
            servers[0].stop(None)
            servers.append(listening(again, address))
            time.sleep(0.5)

    dies = Dies()
    servers.append(listening(dies, address))
    result, _ = run("weights digits canary=10", address)
    for each in servers:
        each.stop(None).wait()
    assert result.exit_code == 1
    assert len(changes_of(dies)) == 1
    assert again.requests == []


def test_a_refusal_by_a_router_is_its_answer(address: str) -> None:
    control = FakeControl()
    control.errors["SetWeights"] = (grpc.StatusCode.UNAVAILABLE, "canary is not ready")
    server = listening(control, address)
    result, took_s = run("weights digits canary=10", address)
    server.stop(None).wait()
    assert "canary is not ready (UNAVAILABLE)" in result.stderr
    assert len(changes_of(control)) == 1
    assert took_s < 1.0


@pytest.mark.parametrize(("after_s", "asked"), [(0.0, 2), (0.7, 1)])
def test_a_call_that_a_stopping_process_turns_away_unread_is_made_again(
    address: str, after_s: float, asked: int
) -> None:
    """gRPC says so at once; later it would be a call that was read, and cancelled."""

    class Stopping(FakeControl):
        def SetWeights(self, request: Any, context: Any) -> Any:
            if not changes_of(self):
                self.requests.append(request)
                time.sleep(after_s)
                context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
            return super().SetWeights(request, context)

    control = Stopping()
    server = listening(control, address)
    result, _ = run("weights digits canary=10", address)
    server.stop(None).wait()
    assert len(changes_of(control)) == asked
    assert (result.exit_code == 0) is (asked == 2)
