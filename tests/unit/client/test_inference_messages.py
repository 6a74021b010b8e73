from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine_client.client import infer_request, read_answer


def test_a_request_holds_model_version_id_inputs_and_wanted_outputs() -> None:
    request = infer_request(
        "digits", {"b": np.ones(2, np.int8), "a": np.zeros(1)}, version="2", outputs=["y"], id="r"
    )

    assert (request.model_name, request.model_version, request.id) == ("digits", "2", "r")
    assert [(each.name, each.datatype) for each in request.inputs] == [("b", "INT8"), ("a", "FP64")]
    assert request.raw_input_contents[0] == b"\x01\x01"
    assert [each.name for each in request.outputs] == ["y"]


def test_an_array_of_text_travels_as_bytes() -> None:
    request = infer_request("m", {"t": np.array(["ab", "c"])})

    assert request.inputs[0].datatype == "BYTES"
    assert request.raw_input_contents[0] == b"\x02\0\0\0ab\x01\0\0\0c"


def test_a_typed_answer_is_read_as_well_as_a_raw_one() -> None:
    response = pb.ModelInferResponse(model_name="m")
    output = response.outputs.add(name="y", datatype="FP32", shape=[2])
    output.contents.fp32_contents.extend([1, 2])

    assert read_answer(response, ()).outputs["y"].tolist() == [1, 2]


def test_an_answer_whose_bytes_dont_fit_its_shape_is_an_invalid_tensor() -> None:
    response = pb.ModelInferResponse(raw_output_contents=[b"\0"])
    response.outputs.add(name="y", datatype="FP32", shape=[1])

    with pytest.raises(InvalidTensor, match="takes 4 raw bytes, got 1"):
        read_answer(response, ())


@pytest.mark.parametrize("revision", ["", "x", "-1", "1.5", "²"])
def test_a_revision_that_is_no_number_counts_as_none(revision: Any) -> None:
    answer = read_answer(pb.ModelInferResponse(), [("x-coalmine-revision", revision)])

    assert answer.revision == 0


@given(st.lists(st.tuples(st.sampled_from(["a", "b-bin"]), st.binary(max_size=4))))
def test_trailing_metadata_is_kept_as_it_came(pairs: Any) -> None:
    assert read_answer(pb.ModelInferResponse(), pairs).trailing_metadata == tuple(pairs)
