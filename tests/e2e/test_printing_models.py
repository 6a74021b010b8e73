"""Models that print and warn: answers stay JSON, and so does every line of a server's log."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.processes import ran
from tests.doubles.server_process import server_of, written
from tests.doubles.server_rig import infer_request, pixels
from tests.doubles.waiting import until
from tests.doubles.worker_processes import PORTS

CLOSED_STDOUT = 'exec "$0" -m coalmine_client "$@" >&-'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return written("tests.doubles.printing_models", folder) / "answering"


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def printed(text: str, line: str) -> set[tuple[str, int]]:
    """Return which models have printed such a line."""
    return {
        (event["model"], event["version"])
        for event in events(text)
        if event["event"] == "printed" and line in event["line"]
    }


def test_the_json_of_package_is_all_there_is_on_standard_output(
    models: Path, tmp_path: Path
) -> None:
    signature = ("--input", "pixels:FP32:[64]", "--output", "logits:FP32:[64]")
    rows = ("--max-batch-size", "8")
    source = models / "loud" / "1" / "model.pt"
    place = ("--repository", tmp_path / "models", "--name", "louder", "--version", "7")
    done = ran("package", source, *place, *signature, *rows, "--json", folder=tmp_path)
    assert json.loads(done.stdout)["model"] == "louder"
    assert printed(done.stderr, "loud [") == {("louder", 7)}


def test_the_json_of_check_is_all_there_is_on_standard_output(models: Path, tmp_path: Path) -> None:
    done = ran("server", "check", models, "--json", folder=tmp_path)
    assert {row["model"] for row in json.loads(done.stdout)} == {"loud", "warns"}
    assert printed(done.stderr, "loud [") == {("loud", 1)}


async def test_each_line_of_a_servers_log_is_an_event_with_the_model_that_printed_it(
    models: Path, tmp_path: Path
) -> None:
    with server_of(models, tmp_path, "--workers", "2") as server:
        async with grpc.aio.insecure_channel(server.address("grpc")) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            for name in ("loud", "warns"):
                await stub.ModelInfer(infer_request(name, pixels(value=7.0)), timeout=30)
        until(lambda: printed(server.log.read_text(), "asked for 448") != set(), 30)
        assert server.stop() == 0
    text = server.log.read_text()
    assert printed(text, "asked for 448") == {("loud", 1)}
    assert printed(text, "\\x1b[31mcareful") == {("warns", 1)}
    assert {event["worker"] for event in events(text) if event["event"] == "printed"} == {0, 1}


@pytest.fixture
def deaf(models: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Yield a server that was started with its standard output closed, and its log."""
    log = tmp_path / "server.log"
    arguments = ("server", "run", "--model-repository", models, *PORTS)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            ["sh", "-c", CLOSED_STDOUT, sys.executable, *map(str, arguments)], stderr=stderr
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait(30)


async def test_a_model_that_prints_answers_also_where_standard_output_is_closed(
    deaf: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, log = deaf
    until(lambda: any(each["event"] == "ready" for each in events(log.read_text())), 60)
    address = next(each["grpc"] for each in events(log.read_text()) if "grpc" in each)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(infer_request("loud", pixels()), timeout=30)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 30) == 0
