"""Liveness, metadata and config as tritonclient reads them, sync and asyncio."""

import pytest

from tests.doubles.server_process import Output, output_of


@pytest.fixture(scope="module", params=["sync", "aio"])
def output(address: str, request: pytest.FixtureRequest) -> Output:
    caller = "tests.conformance.callers.metadata"
    return output_of(caller, request.param, address)


def test_the_server_and_its_models_are_live_and_ready(output: Output) -> None:
    names = ("live", "ready", "model_ready", "version_ready", "label_ready")
    assert {name: output[name] for name in names} == dict.fromkeys(names, True)


def test_a_model_or_version_that_nobody_knows_is_not_ready_which_is_no_error(
    output: Output,
) -> None:
    assert output["unknown_ready"] is False
    assert output["unknown_version_ready"] is False


def test_metadata_has_every_version_and_the_batch_dimension(output: Output) -> None:
    pixels = {"name": "pixels", "datatype": "FP32", "shape": ["-1", "64"]}
    logits = {"name": "logits", "datatype": "FP32", "shape": ["-1", "10"]}
    model = output["model"]
    assert (model["name"], model["platform"]) == ("digits", "pytorch_torchscript")
    assert (model["inputs"], model["outputs"]) == ([pixels], [logits])
    assert model["versions"] == output["versions"] == ["1", "2"]
    assert output["version"]["versions"] == ["1"]
    assert output["platform"] == "pytorch_torchscript"


def test_metadata_tells_variable_sizes_and_strings(output: Output) -> None:
    (tokens,) = output["sequences"]["inputs"]
    (words,) = output["words"]["inputs"]
    assert tokens == {"name": "tokens", "datatype": "INT64", "shape": ["-1", "-1"]}
    assert words == {"name": "words", "datatype": "BYTES", "shape": ["-1", "1"]}


def test_config_is_in_tritons_words(output: Output) -> None:
    config = output["config"]["config"]
    assert config["input"] == [{"name": "pixels", "data_type": "TYPE_FP32", "dims": ["64"]}]
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["10"]}]
    assert (config["max_batch_size"], config["backend"]) == (32, "pytorch")
    assert config["version_policy"] == {"latest": {"num_versions": 2}}
    assert output["max_batch_size"] == 32


def test_config_has_tritons_number_for_every_datatype(output: Output) -> None:
    unsigned = {"x_uint8": 2, "x_uint16": 3, "x_uint32": 4, "x_uint64": 5}
    signed = {"x_int8": 6, "x_int16": 7, "x_int32": 8, "x_int64": 9}
    floating = {"x_fp16": 10, "x_fp32": 11, "x_fp64": 12, "x_bf16": 14}
    assert output["inputs"] == {"x_bool": 1, **unsigned, **signed, **floating}
    assert output["words_config"]["config"]["input"][0]["data_type"] == "TYPE_STRING"


def test_what_is_unknown_is_not_found(output: Output) -> None:
    assert output["unknown_metadata"]["status"] == "StatusCode.NOT_FOUND"
    assert "model 'nobody'" in output["unknown_metadata"]["message"]
    assert output["unknown_config"]["status"] == "StatusCode.NOT_FOUND"
    assert output["unknown_config"]["message"].startswith("model 'digits' has no version '9'")
