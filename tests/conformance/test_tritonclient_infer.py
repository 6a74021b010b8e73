"""ModelInfer as tritonclient calls it, sync and asyncio."""

import pytest

from tests.doubles.server_process import Output, output_of

NUMBERS = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64"),
)


@pytest.fixture(scope="module", params=["sync", "aio"])
def output(address: str, request: pytest.FixtureRequest) -> Output:
    caller = "tests.conformance.callers.infer"
    return output_of(caller, request.param, address)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_the_least_and_the_greatest_of_each_datatype_come_back(
    output: Output, datatype: str
) -> None:
    expected = {"same_bytes": True, "datatype": datatype, "same_values": True}
    assert output["datatypes"][datatype] == expected


def test_what_is_no_number_is_an_answer_like_any_other(output: Output) -> None:
    assert output["not_numbers"] == ["nan"] * 10


def test_words_come_back_whether_sent_as_bytes_or_as_text(output: Output) -> None:
    words = output["words"]
    assert words["of_bytes"] == ["", "plainplain", "grüße 🐤grüße 🐤", "with\0nullwith\0null"]
    assert words["of_text"] == ["abab", "üü"]
    assert (words["shape"], words["datatype"]) == ([4, 1], "BYTES")


def test_a_response_names_its_request_model_and_version(output: Output) -> None:
    named = output["named"]
    assert (named["id"], named["no_id"]) == ("the-id-7", "")
    assert named["model"] == ["digits", "2"]


def test_every_row_of_a_request_is_answered(output: Output) -> None:
    assert output["named"]["shape"] == ["3", "10"]
    assert output["named"]["logits"] == pytest.approx([64 * (i + 0.001) for i in range(10)])


def test_a_model_with_several_outputs_gives_those_asked_for_in_that_order(output: Output) -> None:
    several = output["several"]
    assert (several["every"], several["doubled"]) == (["doubled", "length"], [[2, 4, 6]])
    assert (several["one"], several["length"]) == (["length"], [[3]])
    assert several["not_asked"] is None
    assert several["both"] == ["length", "doubled"]


def test_an_optional_input_may_be_left_out_and_inputs_may_come_in_any_order(output: Output) -> None:
    assert output["optional"] == [1.0, 1.5, 1.5]


def test_no_version_is_the_newest(output: Output) -> None:
    assert output["versions"][""] == output["versions"]["2"]
    assert output["versions"]["1"] == ["1", 64.0]


def test_a_label_stands_for_its_version_and_the_answer_has_the_number(output: Output) -> None:
    assert output["versions"]["stable"] == output["versions"]["1"]
    assert output["versions"]["canary"] == output["versions"]["2"]


@pytest.mark.parametrize("given", ["priority", "timeout", "client_timeout", "own", "headers"])
def test_parameters_do_not_change_the_answer(output: Output, given: str) -> None:
    assert output["parameters"][given] == [64.0 * i for i in range(10)]
