"""`coalmine mismatches` against the control API, and its exports against a server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import Tensor, encode_inputs
from coalmine_client.cli.root import program
from tests.doubles import inference_server
from tests.doubles.control import FakeControl, serving
from tests.doubles.inference_server import FakeInference

Run = Callable[..., Result]

INPUTS = [
    Tensor("pixels", "FP32", np.array([[0.1, np.nan], [-np.inf, -0.0]], np.float32)),
    Tensor("half", "FP16", np.array([0x7C01, 0x3C01, 0xFC00], "<u2").view("<f2")),
    Tensor("brain", "BF16", np.array([1 / 3, np.nan], ml_dtypes.bfloat16)),
    Tensor("text", "BYTES", np.array([b"\xff\x00", "né".encode(), b""], object)),
    Tensor("big", "UINT64", np.array([2**64 - 1], np.uint64)),
    Tensor("flag", "BOOL", np.array([True, False])),
]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def run(control: FakeControl) -> Iterator[Run]:
    """Run `coalmine mismatches digits …`."""
    with serving(control) as address:
        yield lambda *words: CliRunner().invoke(
            program(), ["mismatches", "digits", *words], env={"COALMINE_CONTROL": address}
        )


@pytest.fixture
def server() -> FakeInference:
    return FakeInference(lambda _: {"y": ("FP32", np.zeros(1, np.float32))})


@pytest.fixture
def target(server: FakeInference) -> Iterator[str]:
    with inference_server.serving(server) as address:
        yield address


def test_a_list_is_asked_for_as_the_line_says(run: Run, control: FakeControl) -> None:
    words = ["--output", "y", "--candidate", "int8", "--kind", "nan", "--worst", "--limit", "5"]

    assert run(*words).exit_code == 0
    assert control.requests == [
        pb.ListMismatchesRequest(
            route="digits", output="y", candidate="int8", kind="nan", worst=True, limit=5
        )
    ]


def test_an_exported_request_is_replayed_to_the_bit(
    run: Run, control: FakeControl, server: FakeInference, target: str, tmp_path: Path
) -> None:
    request = oip.ModelInferRequest(model_name="digits", id="r-1")
    encode_inputs(request, INPUTS)
    request.parameters["user"].string_param = "u1"
    request.outputs.add(name="y")
    control.answers["GetMismatch"].request = request.SerializeToString()

    result = run("--export", "m-17", "--to", str(tmp_path))

    *_, command = result.stdout.splitlines()
    words = command.replace("TARGET", target).split()
    replayed = CliRunner().invoke(program(), words[1:])
    assert replayed.exit_code == 0, replayed.output
    assert server.requests == [request]
    assert "id r-1" in replayed.stdout


def test_what_was_written_is_told_a_line_each(run: Run, tmp_path: Path) -> None:
    result = run("--export", "m-17", "--to", str(tmp_path))

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"wrote {tmp_path}/m-17.npz: inputs/pixels, reference/logits, candidate/logits",
        f"wrote {tmp_path}/m-17.json: the request; replay it with",
        f"  coalmine infer TARGET digits --request {tmp_path}/m-17.json",
    ]


def test_what_was_written_as_json(run: Run, control: FakeControl, tmp_path: Path) -> None:
    control.answers["GetMismatch"].inputs_dropped.append("name")

    result = run("--export", "m-17", "--to", str(tmp_path), "--json")

    assert json.loads(result.stdout) == {
        "id": "m-17",
        "npz": f"{tmp_path}/m-17.npz",
        "request": f"{tmp_path}/m-17.json",
        "replay": f"coalmine infer TARGET digits --request {tmp_path}/m-17.json",
        "missing": ["the request lacks inputs that the route drops: name"],
    }


def test_a_second_export_needs_force(run: Run, tmp_path: Path) -> None:
    words = ["--export", "m-17", "--to", str(tmp_path)]
    run(*words)

    result = run(*words)

    assert result.exit_code == 1
    assert result.stderr == (
        f"coalmine: mismatches: {tmp_path}/m-17.npz is there already; --force overwrites it\n"
    )
    assert run(*words, "--force").exit_code == 0


def test_of_a_sensitive_route_nothing_is_exported(
    run: Run, control: FakeControl, tmp_path: Path
) -> None:
    control.answers["GetMismatch"] = pb.Mismatch(id="m-17", capture="shapes")

    result = run("--export", "m-17", "--to", str(tmp_path))

    assert result.exit_code == 1
    assert result.stderr == (
        "coalmine: mismatches: 'm-17' has no values to export: "
        "the route keeps shapes and no values (capture: shapes)\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--show", "a", "--export", "a"], "--show and --export: expected one of them"),
        (["--to", "x"], "--to and --force go with --export"),
        (["--show", "a", "--force"], "--to and --force go with --export"),
        (["--limit", "1001"], "a whole number from 1 to 1000"),
    ],
)
def test_options_that_contradict_are_wrong_usage(
    run: Run, control: FakeControl, words: list[str], why: str
) -> None:
    result = run(*words)

    assert (result.exit_code, control.requests) == (2, [])
    assert why in result.stderr


# ---------------------------------------------------------------- infer --request


def request_file(folder: Path, **told: Any) -> str:
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    path = folder / "r.json"
    path.write_text(json.dumps({"inputs": [pixels], **told}))
    return str(path)


def infer(target: str, *words: str) -> Result:
    return CliRunner().invoke(program(), ["infer", target, "digits", *words])


def test_version_and_outputs_of_the_command_line_replace_the_files(
    server: FakeInference, target: str, tmp_path: Path
) -> None:
    file = request_file(tmp_path, outputs=[{"name": "z"}])

    result = infer(target, "--request", file, "--version", "3", "--output", "y")

    assert result.exit_code == 0, result.output
    assert server.requests[0].model_version == "3"
    assert [each.name for each in server.requests[0].outputs] == ["y"]


def test_a_request_can_be_sent_many_times(
    server: FakeInference, target: str, tmp_path: Path
) -> None:
    result = infer(target, "--request", request_file(tmp_path), "--repeat", "7", "--json")

    assert json.loads(result.stdout)["calls"] == 7
    assert len(server.requests) == 7


@pytest.mark.parametrize("other", [["--input", "x=[1]"], ["--rows"]])
def test_a_request_goes_without_inputs_and_rows(
    server: FakeInference, target: str, tmp_path: Path, other: list[str]
) -> None:
    result = infer(target, "--request", request_file(tmp_path), *other)

    assert (result.exit_code, server.requests) == (2, [])
    assert "--request: a whole request, so without --input and --rows" in result.stderr


def test_a_file_that_is_no_request_is_one_line(target: str, tmp_path: Path) -> None:
    file = request_file(tmp_path, model="digits")

    assert infer(target, "--request", file).stderr == (
        f"coalmine: infer: {file}: the request: unknown key 'model'\n"
    )
    missing = infer(target, "--request", "nowhere.json")
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)
    assert "nowhere.json" in missing.stderr
