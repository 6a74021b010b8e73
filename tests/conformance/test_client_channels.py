"""The channels of the clients do what their READMEs say: seen by a backend made for it."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.conformance.listed import drain
from tests.conformance.runners import Runner, running

pytestmark = pytest.mark.timeout(600)

CALL = {**drain(), "call": "infer"}
NOT_YET_S = 0.7
DEADLINE_S = 10.0


@dataclass
class Backend(pb_grpc.GRPCInferenceServiceServicer):
    """Answers each call with the next of `codes`, or OK; knows how many came, with what time."""

    health: health.HealthServicer
    codes: deque[grpc.StatusCode] = field(default_factory=deque)
    times_left: list[float] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        self.times_left.append(context.time_remaining())
        self.came.set()
        if self.codes:
            context.abort(self.codes.popleft(), "as the test wants it")
        return pb.ModelInferResponse(id=request.id)

    def serves(self, *, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self.health.set("", status.SERVING if is_serving else status.NOT_SERVING)


@pytest.fixture
def backend() -> Iterator[tuple[Backend, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    watched = health.HealthServicer()
    made = Backend(watched)  # type: ignore[abstract]  # others are not called
    health_pb2_grpc.add_HealthServicer_to_server(watched, server)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(0).wait()


def languages(*names: str) -> Any:
    marked = [
        pytest.param(each, marks=() if each == "python" else pytest.mark.needs(each))
        for each in names
    ]
    return pytest.mark.parametrize("language", marked)


@pytest.fixture
def runner(language: str, backend: tuple[Backend, str]) -> Iterator[Runner]:
    with running(language, backend[1]) as each:
        yield each


@languages("python", "go", "java")
def test_an_address_that_says_not_serving_gets_no_call_until_it_serves(
    backend: tuple[Backend, str], runner: Runner
) -> None:
    called, _ = backend
    called.serves(is_serving=False)
    runner.begin(CALL)

    assert not called.came.wait(NOT_YET_S)
    called.serves(is_serving=True)
    assert runner.told()["status"] == "OK"


@languages("python", "node", "go", "java")
def test_unavailable_alone_is_called_again(backend: tuple[Backend, str], runner: Runner) -> None:
    called, _ = backend
    called.serves(is_serving=True)
    called.codes.extend([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE])
    assert runner.ask(CALL)["status"] == "OK"
    assert len(called.times_left) == 3

    called.codes.append(grpc.StatusCode.INTERNAL)
    assert runner.ask(CALL)["status"] == "INTERNAL"
    assert len(called.times_left) == 4


@languages("node", "go", "java")
def test_a_call_that_sets_no_deadline_has_one(backend: tuple[Backend, str], runner: Runner) -> None:
    called, _ = backend
    called.serves(is_serving=True)

    assert runner.ask(CALL)["status"] == "OK"
    [left] = called.times_left
    assert DEADLINE_S - 5 < left <= DEADLINE_S + 0.5
