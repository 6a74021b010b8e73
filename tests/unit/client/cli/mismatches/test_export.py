"""A kept mismatch as files."""

import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from coalmine.command_line.failure import Failure, WrongUsage
from coalmine.control.v1 import control_pb2
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, encode_inputs
from coalmine_client.cli.atomic_file import write_private
from coalmine_client.cli.mismatch_bodies import read_bodies
from coalmine_client.cli.mismatches.export import Export, export_of, write_export
from tests.doubles.control import CANDIDATE, REFERENCE, a_mismatch, response_body

NAMES = np.array([[b"a\x00", b""], [b"\xff", b"longer"]], object)


def exported(mismatch: control_pb2.Mismatch) -> Export:
    return export_of(mismatch, read_bodies(mismatch))


def request(*tensors: Tensor, **fields: Any) -> bytes:
    made = pb.ModelInferRequest(**{"model_name": "digits", **fields})
    encode_inputs(made, tensors)
    return made.SerializeToString()


def test_the_arrays_are_inputs_reference_and_candidate_and_load_without_pickle(
    tmp_path: Path,
) -> None:
    written = write_export(exported(a_mismatch(bodies=True)), "m-17", tmp_path / "new", force=False)

    assert written.npz == tmp_path / "new" / "m-17.npz"
    with np.load(written.npz, allow_pickle=False) as loaded:
        assert set(loaded) == {"inputs/pixels", "reference/logits", "candidate/logits"}
        np.testing.assert_array_equal(loaded["reference/logits"], REFERENCE)
        np.testing.assert_array_equal(loaded["candidate/logits"], CANDIDATE)


def test_bytes_are_stored_end_to_end_with_their_lengths(tmp_path: Path) -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.request = request(Tensor("names", "BYTES", NAMES))
    written = write_export(exported(mismatch), "m-17", tmp_path, force=False)

    assert written.npz
    with np.load(written.npz, allow_pickle=False) as loaded:
        ends = np.cumsum(loaded["inputs/names/lengths"].ravel())[:-1]
        elements = np.split(loaded["inputs/names/bytes"], ends)
        assert loaded["inputs/names/lengths"].shape == (2, 2)
    assert [each.tobytes() for each in elements] == NAMES.ravel().tolist()


def test_bf16_is_stored_as_float32_which_holds_each_of_its_values() -> None:
    mismatch = a_mismatch(bodies=True)
    values = np.array([1.5, np.nan, -0.0, 1e-40], ml_dtypes.bfloat16)
    mismatch.request = request(Tensor("x", "BF16", values))

    stored = exported(mismatch).arrays["inputs/x"]

    assert stored.dtype == np.float32
    assert stored.astype(ml_dtypes.bfloat16).tobytes() == values.tobytes()


def test_a_name_that_is_a_path_is_spelt_out() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.request = request(Tensor("../../etc:0", "FP32", np.zeros(1, np.float32)))

    assert "inputs/..%2F..%2Fetc%3A0" in exported(mismatch).arrays


def test_the_command_names_model_version_and_file(tmp_path: Path) -> None:
    mismatch = a_mismatch(bodies=True)
    pixels = Tensor("pixels", "FP32", np.zeros(1, np.float32))
    mismatch.request = request(pixels, model_name="my digits", model_version="3")

    written = write_export(exported(mismatch), "m-17", tmp_path, force=False)

    assert written.replay == (
        f"coalmine infer TARGET 'my digits' --version 3 --request {tmp_path}/m-17.json"
    )
    assert written.request
    assert json.loads(written.request.read_text())["inputs"][0]["name"] == "pixels"


def test_without_a_models_name_the_routes_stands_for_it() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.request = request(Tensor("x", "FP32", np.zeros(1, np.float32)), model_name="")

    assert exported(mismatch).replay == "coalmine infer TARGET digits --request"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"capture": "none"}, "capture: none"),
        ({"capture": "shapes"}, "capture: shapes"),
        ({"bodies_dropped": True}, "over the limit"),
    ],
)
def test_of_what_was_not_kept_nothing_is_exported_and_the_reason_is_given(
    fields: Any, why: str
) -> None:
    mismatch = a_mismatch()
    mismatch.MergeFrom(control_pb2.Mismatch(**fields))

    with pytest.raises(Failure, match=f"'m-17' has no values to export: .*{why}"):
        exported(mismatch)


def test_a_request_without_its_dropped_inputs_is_written_and_says_so() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.inputs_dropped.append("name")

    export = exported(mismatch)

    assert export.request
    assert export.missing == ("the request lacks inputs that the route drops: name",)


@pytest.mark.parametrize("body", [b"", b"\xff", request(), request()[:-1]])
def test_a_request_that_cant_be_written_leaves_the_answers(body: bytes, tmp_path: Path) -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.request = body

    export = exported(mismatch)
    written = write_export(export, "m-17", tmp_path, force=False)

    assert set(export.arrays) == {"reference/logits", "candidate/logits"}
    assert (written.request, written.replay) == (None, "")
    assert export.missing[0].startswith("the request is not written: ")
    assert [each.name for each in tmp_path.iterdir()] == ["m-17.npz"]


def test_an_answer_that_cant_be_read_is_left_out_and_named() -> None:
    mismatch = a_mismatch(bodies=True)
    mismatch.candidate_response = response_body(REFERENCE)[:-1]

    export = exported(mismatch)

    assert set(export.arrays) == {"inputs/pixels", "reference/logits"}
    assert export.missing[0].startswith("the candidate can't be read: ")


@pytest.mark.parametrize("there", ["m-17.npz", "m-17.json"])
def test_a_file_that_is_there_is_overwritten_only_by_force(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    export = exported(a_mismatch(bodies=True))

    with pytest.raises(Failure, match=f"{there} is there already; --force overwrites it"):
        write_export(export, "m-17", tmp_path, force=False)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]

    write_export(export, "m-17", tmp_path, force=True)
    assert {each.name for each in tmp_path.iterdir()} == {"m-17.npz", "m-17.json"}
    assert (tmp_path / there).read_bytes() != b"mine"


@pytest.mark.parametrize("record_id", ["../m-17", "", ".", "a/b", "m\n"])
def test_an_id_that_is_a_path_writes_nothing(tmp_path: Path, record_id: str) -> None:
    with pytest.raises(WrongUsage, match="is no id of a mismatch"):
        write_export(exported(a_mismatch(bodies=True)), record_id, tmp_path / "in", force=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cant_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Failure, match=r"m-17.npz: .*"):
        write_export(exported(a_mismatch(bodies=True)), "m-17", tmp_path / "file", force=False)


def test_an_exported_file_is_for_its_user_alone(tmp_path: Path) -> None:
    write_private(tmp_path / "a" / "request.bin", b"x")
    assert (tmp_path / "a" / "request.bin").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_private(pipe, b"x")
    assert (pipe.is_fifo(), os.read(reader, 10)) == (True, b"x")
    os.close(reader)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
