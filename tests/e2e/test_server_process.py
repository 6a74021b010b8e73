"""The server as a process: how it starts, how it refuses to, and how it ends."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.processes import Started, begin, ran, started
from tests.doubles.server_rig import infer_request, pixels
from tests.doubles.waiting import until
from tests.models import Linear, Slow, config, write_model

PORTS = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    write_model(root, "digits", {1: Linear()}, config(batching={"max_delay": "5ms"}))
    write_model(root, "slow", {1: Slow()})
    return root


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[Started]:
    with started("server", "run", "--model-repository", models, *PORTS, folder=tmp_path) as running:
        yield running


def refused(*arguments: str | Path, folder: Path, **environment: str) -> str:
    """Return the one line that a server says which does not start."""
    done = ran("server", "run", *arguments, folder=folder, environment=environment)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "", "it announces nothing"
    assert "Traceback" not in done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("coalmine: ")]
    return line.removeprefix("coalmine: ")


async def test_a_stop_under_load_fails_no_request_and_exits_0(server: Started) -> None:
    answered = 0
    ends: list[str] = []

    async def call_until_turned_away(stub: Any) -> None:
        nonlocal answered
        while True:
            try:
                await stub.ModelInfer(infer_request("digits", pixels()), timeout=30)
            except grpc.aio.AioRpcError as error:
                ends.append(f"{error.code().name} after {answered >= 200}")
                return
            answered += 1
            if answered == 200:
                os.kill(server.pid, signal.SIGTERM)

    async with grpc.aio.insecure_channel(server.address("grpc")) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(call_until_turned_away(stub))
    assert ends == ["UNAVAILABLE after True"] * 16, "turned away, which is not failed or cancelled"
    assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_what_is_in_flight_at_a_stop_is_answered(server: Started) -> None:
    async with grpc.aio.insecure_channel(server.address("grpc")) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer(infer_request("slow", pixels(value=200_000.0)), timeout=60)
        await asyncio.to_thread(wait_for_in_flight, server)
        os.kill(server.pid, signal.SIGTERM)
        response = await call
    assert list(response.outputs[0].shape) == [1, 10]
    assert await asyncio.to_thread(server.process.wait, 30) == 0


def test_ctrl_c_ends_it_with_0(server: Started) -> None:
    assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.log.read_text()


async def test_a_forward_that_outlasts_the_grace_does_not_outlast_the_process(
    models: Path, tmp_path: Path
) -> None:
    arguments = ("server", "run", "--model-repository", models, *PORTS, "--grace", "100ms")
    with started(*arguments, folder=tmp_path) as server:
        async with grpc.aio.insecure_channel(server.address("grpc")) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelInfer(infer_request("slow", pixels(value=1e9)), timeout=60)
            await asyncio.to_thread(wait_for_in_flight, server)
            os.kill(server.pid, signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        assert await asyncio.to_thread(server.process.wait, 20) == 0
        assert "forward_never_returned" in server.log.read_text()


async def test_a_forward_that_outlasts_its_version_does_not_outlast_the_process_either(
    models: Path, tmp_path: Path
) -> None:
    options = (*PORTS, "--grace", "100ms", "--allow-load")
    with started("server", "run", "--model-repository", models, *options, folder=tmp_path) as it:
        async with grpc.aio.insecure_channel(it.address("grpc")) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            caught = stub.ModelInfer(infer_request("slow", pixels(value=1e9)), timeout=60)
            await asyncio.to_thread(wait_for_in_flight, it)
            await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="slow"))
            caught.cancel()
        assert it.stop() == 0


def test_a_stop_while_models_load_ends_it_with_0(models: Path, tmp_path: Path) -> None:
    write_model(models, "warming", {1: Linear()}, config(warmup={"runs": 100_000_000}))
    arguments = ("server", "run", "--model-repository", models, *PORTS)
    running = begin(*arguments, folder=tmp_path)
    until(lambda: "model 'slow' version 1" in running.log.read_text(), 60)
    assert running.stop() == 0
    assert running.process.stdout is not None
    assert running.process.stdout.closed


def wait_for_in_flight(server: Started) -> None:
    until(lambda: "coalmine_server_in_flight 1.0" in server.page(), 30)


# ---------------------------------------------------------------- what does not start


def test_a_tampered_model_is_refused_in_one_line(models: Path, tmp_path: Path) -> None:
    path = models / "slow" / "1" / "model.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    line = refused("--model-repository", models, *PORTS, folder=tmp_path)
    assert line.startswith(f"{path}: expected sha256 ")


def test_a_file_that_is_no_model_is_refused_in_one_line(models: Path, tmp_path: Path) -> None:
    (models / "slow" / "1" / "model.pt").write_bytes(b"junk")
    (models / "slow" / "config.yaml").write_text(
        (models / "slow" / "config.yaml").read_text().partition("sha256:")[0] + "instances: 2\n"
    )
    line = refused("--model-repository", models, *PORTS, folder=tmp_path)
    assert line.startswith(f"{models}/slow/1/model.pt: not a TorchScript file: ")


def test_a_wrong_config_is_refused_in_one_line(models: Path, tmp_path: Path) -> None:
    with (models / "slow" / "config.yaml").open("a") as file:
        file.write("instnaces: 2\n")
    line = refused("--model-repository", models, *PORTS, folder=tmp_path)
    assert line == f"{models}/slow/config.yaml: instnaces: unknown key"


def test_a_missing_repository_is_refused_in_one_line(tmp_path: Path) -> None:
    line = refused("--model-repository", tmp_path / "nowhere", *PORTS, folder=tmp_path)
    assert line == f"model repository {tmp_path}/nowhere: not a folder"


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_a_port_in_use_is_refused_in_one_line_before_models_load(
    models: Path, tmp_path: Path, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--http" if option == "--listen" else "--listen"
        ports = (option, address, other, "127.0.0.1:0")
        done = ran("server", "run", "--model-repository", models, *ports, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"coalmine: cannot listen on {address}: address already in use\n"


def test_a_trace_folder_that_cannot_be_made_is_refused_in_one_line(
    models: Path, tmp_path: Path
) -> None:
    traces = tmp_path / "file" / "traces"
    traces.parent.write_text("in the way")
    line = refused("--model-repository", models, *PORTS, "--traces", traces, folder=tmp_path)
    assert line == f"trace folder {traces}: not a directory"


def test_a_second_server_on_the_same_port_is_refused(server: Started, tmp_path: Path) -> None:
    taken = ("--listen", server.address("grpc"), "--http", "127.0.0.1:0")
    line = refused("--model-repository", tmp_path / "models", *taken, folder=tmp_path)
    assert line == f"cannot listen on {server.address('grpc')}: address already in use"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER: unknown sampler 'sometimes'"),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "a,=b"},
            "OTEL_RESOURCE_ATTRIBUTES: expected NAME=VALUE,NAME=VALUE, got 'a,=b'",
        ),
        ({"COALMINE_LOG_LEVEL": "loud"}, "COALMINE_LOG_LEVEL: expected debug … error, got 'loud'"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(
    models: Path, tmp_path: Path, environment: dict[str, str], text: str
) -> None:
    line = refused("--model-repository", models, *PORTS, folder=tmp_path, **environment)
    assert line == text
