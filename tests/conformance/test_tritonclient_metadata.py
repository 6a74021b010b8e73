"""Liveness, metadata and config as tritonclient reads them, sync and asyncio."""

from typing import Any

import pytest

from tests.doubles.server_process import told_by

Told = dict[str, Any]


@pytest.fixture(scope="module", params=["sync", "aio"])
def told(address: str, request: pytest.FixtureRequest) -> Told:
    caller = "tests.conformance.callers.metadata"
    answer: Told = told_by(caller, request.param, address)
    return answer


def test_the_server_and_its_models_are_live_and_ready(told: Told) -> None:
    names = ("live", "ready", "model_ready", "version_ready", "label_ready")
    assert {name: told[name] for name in names} == dict.fromkeys(names, True)


def test_a_model_or_version_that_nobody_knows_is_not_ready_which_is_no_error(told: Told) -> None:
    assert told["unknown_ready"] is False
    assert told["unknown_version_ready"] is False


def test_metadata_has_every_version_and_the_batch_dimension(told: Told) -> None:
    pixels = {"name": "pixels", "datatype": "FP32", "shape": ["-1", "64"]}
    logits = {"name": "logits", "datatype": "FP32", "shape": ["-1", "10"]}
    model = told["model"]
    assert (model["name"], model["platform"]) == ("digits", "pytorch_torchscript")
    assert (model["inputs"], model["outputs"]) == ([pixels], [logits])
    assert model["versions"] == told["versions"] == ["1", "2"]
    assert told["version"]["versions"] == ["1"]
    assert told["platform"] == "pytorch_torchscript"


def test_metadata_tells_variable_sizes_and_strings(told: Told) -> None:
    (tokens,) = told["sequences"]["inputs"]
    (words,) = told["words"]["inputs"]
    assert tokens == {"name": "tokens", "datatype": "INT64", "shape": ["-1", "-1"]}
    assert words == {"name": "words", "datatype": "BYTES", "shape": ["-1", "1"]}


def test_config_is_in_tritons_words(told: Told) -> None:
    config = told["config"]["config"]
    assert config["input"] == [{"name": "pixels", "data_type": "TYPE_FP32", "dims": ["64"]}]
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["10"]}]
    assert (config["max_batch_size"], config["backend"]) == (32, "pytorch")
    assert config["version_policy"] == {"latest": {"num_versions": 2}}
    assert told["max_batch_size"] == 32


def test_config_has_tritons_number_for_every_datatype(told: Told) -> None:
    unsigned = {"x_uint8": 2, "x_uint16": 3, "x_uint32": 4, "x_uint64": 5}
    signed = {"x_int8": 6, "x_int16": 7, "x_int32": 8, "x_int64": 9}
    floating = {"x_fp16": 10, "x_fp32": 11, "x_fp64": 12, "x_bf16": 14}
    assert told["inputs"] == {"x_bool": 1, **unsigned, **signed, **floating}
    assert told["words_config"]["config"]["input"][0]["data_type"] == "TYPE_STRING"


def test_what_is_unknown_is_not_found(told: Told) -> None:
    assert told["unknown_metadata"]["status"] == "StatusCode.NOT_FOUND"
    assert "model 'nobody'" in told["unknown_metadata"]["message"]
    assert told["unknown_config"]["status"] == "StatusCode.NOT_FOUND"
    assert told["unknown_config"]["message"].startswith("model 'digits' has no version '9'")
