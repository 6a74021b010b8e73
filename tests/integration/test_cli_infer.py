"""`coalmine infer` against a server and, by its trailing metadata, a router."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from coalmine_client.cli.root import program
from tests.doubles.inference_server import FakeInference, serving

Run = Callable[..., Result]


@pytest.fixture
def server() -> FakeInference:
    return FakeInference()


@pytest.fixture
def run(server: FakeInference) -> Iterator[Run]:
    """Run `coalmine infer TARGET MODEL …`."""
    with serving(server) as target:
        yield lambda *words, model="digits": CliRunner().invoke(
            program(), ["infer", target, model, *words]
        )


@pytest.fixture
def npy(tmp_path: Path) -> Any:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.float32).reshape(3, 2))
    return f"pixels=@{path}"


def test_one_call_shows_outputs_variant_and_latency(
    run: Run, server: FakeInference, npy: str
) -> None:
    server.canary_every = 1

    result = run("--input", npy)

    assert result.exit_code == 0, result.output
    assert "digits   version 1 · variant canary, revision 8 · " in result.stdout
    assert " ms\n" in result.stdout
    assert "sum   FP32 [3]\n[1., 5., 9.]" in result.stdout


def test_a_file_is_sent_as_it_is_in_one_request(run: Run, server: FakeInference, npy: str) -> None:
    run("--input", npy)

    (request,) = server.requests
    assert list(request.inputs[0].shape) == [3, 2]
    assert request.inputs[0].datatype == "FP32"


def test_version_outputs_and_headers_are_sent(run: Run, server: FakeInference, npy: str) -> None:
    result = run(*["--input", npy, "--version", "3", "--output", "sum", "--header", "x-user-id=u1"])

    assert result.exit_code == 0, result.output
    assert server.requests[0].model_version == "3"
    assert [each.name for each in server.requests[0].outputs] == ["sum"]
    assert ("x-user-id", "u1") in server.metadata[0]


def test_inline_json_takes_the_datatype_of_the_models_metadata(
    run: Run, server: FakeInference
) -> None:
    server.datatypes["pixels"] = "INT16"

    result = run("--input", "pixels=[[1, 2]]", "--json")

    assert result.exit_code == 0, result.output
    assert server.requests[0].inputs[0].datatype == "INT16"
    assert json.loads(result.stdout)["outputs"]["sum"]["data"] == [3.0]


def test_an_answer_as_json_has_who_gave_it_and_its_tensors(
    run: Run, server: FakeInference, npy: str
) -> None:
    server.canary_every = 1

    found = json.loads(run("--input", npy, "--json").stdout)

    assert found.pop("latency_ms") > 0
    assert found == {
        "model_name": "digits",
        "model_version": "1",
        "id": "",
        "variant": "canary",
        "revision": 8,
        "outputs": {"sum": {"datatype": "FP32", "shape": [3], "data": [1.0, 5.0, 9.0]}},
    }


def test_rows_sends_a_request_a_row_and_again_from_the_first(
    run: Run, server: FakeInference, npy: str
) -> None:
    result = run("--input", npy, "--rows", "--repeat", "5")

    assert result.exit_code == 0, result.output
    first = [np.frombuffer(each.raw_input_contents[0], "<f4")[0] for each in server.requests]
    assert first == [0, 2, 4, 0, 2]
    assert list(server.requests[0].inputs[0].shape) == [1, 2]


def test_rows_alone_sends_every_row_once(run: Run, server: FakeInference, npy: str) -> None:
    run("--input", npy, "--rows")

    assert len(server.requests) == 3


def test_a_bulk_run_counts_variants_statuses_and_latencies(
    run: Run, server: FakeInference, npy: str
) -> None:
    server.canary_every = 10

    result = run("--input", npy, "--repeat", "50", "--concurrency", "4", "--json")

    found = json.loads(result.stdout)
    assert found["calls"] == 50
    assert found["by_status"] == {"OK": 50}
    assert found["answered"] == [
        {"variant": "canary", "model_version": "1", "calls": 5},
        {"variant": "stable", "model_version": "1", "calls": 45},
    ]
    assert 0 < found["latency_p50_ms"] <= found["latency_p99_ms"]
    assert result.stderr == ""


def test_a_bulk_run_shows_the_share_of_each_variant(
    run: Run, server: FakeInference, npy: str
) -> None:
    server.canary_every = 2

    words = [line.split() for line in run("--input", npy, "--repeat", "10").stdout.splitlines()]

    assert ["canary", "1", "5", "50.00%"] in words
    assert ["status", "OK", "10"] in words


def test_a_bulk_run_with_failed_calls_reports_them_and_exits_with_one(
    run: Run, server: FakeInference, npy: str
) -> None:
    server.errors = iter([None, (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")])

    result = run("--input", npy, "--repeat", "4")

    assert result.exit_code == 1
    assert "OK 3, RESOURCE_EXHAUSTED 1" in result.stdout
    assert result.stderr == (
        "coalmine: infer: 1 of 4 calls failed, the first: queue full (RESOURCE_EXHAUSTED)\n"
    )


def test_a_refused_call_is_one_line_with_its_code(
    run: Run, server: FakeInference, npy: str
) -> None:
    server.errors = iter([(grpc.StatusCode.INVALID_ARGUMENT, "input 'pixels' expects FP64")])

    result = run("--input", npy)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "coalmine: infer: input 'pixels' expects FP64 (INVALID_ARGUMENT)\n"


def test_a_server_that_cant_be_reached_is_told_with_its_address(npy: str) -> None:
    result = CliRunner().invoke(program(), ["infer", "127.0.0.1:1", "digits", "--input", npy])

    assert result.exit_code == 1
    assert result.stderr.startswith("coalmine: infer: cannot reach a server at 127.0.0.1:1: ")
    assert result.stderr.count("\n") == 1


def test_an_answer_that_cant_be_read_is_one_line(run: Run, server: FakeInference, npy: str) -> None:
    server.model = lambda _: {"sum": ("FP64", np.zeros(1, np.float32))}

    result = run("--input", npy)

    assert result.exit_code == 1
    assert result.stderr == "coalmine: infer: 'sum' FP64 [1] takes 8 raw bytes, got 4\n"


def test_inline_json_for_a_model_that_isnt_there_says_so(run: Run) -> None:
    result = run("--input", "pixels=[[1]]", model="other")

    assert result.exit_code == 1
    assert result.stderr == "coalmine: infer: no model 'other' (NOT_FOUND)\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--input", "pixels"], "expected NAME=@file.npy"),
        (["--input", "colour=[1]"], "model 'digits' has no input 'colour', it has pixels"),
        (["--input", "pixels=@nowhere.npy"], "No such file"),
        (["--input", "pixels=[1", "--rows"], "is not JSON"),
        (["--input", "pixels=1", "--rows"], "has no rows"),
        (["--header", "x"], "expected KEY=VALUE"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    run: Run, server: FakeInference, words: Any, why: Any
) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.requests == []


@pytest.mark.parametrize("option", ["--repeat=0", "--concurrency=0", "--timeout=0"])
def test_a_number_out_of_bounds_is_wrong_usage(run: Run, option: Any) -> None:
    assert run(option).exit_code == 2
