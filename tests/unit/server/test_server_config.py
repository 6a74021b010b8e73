from pathlib import Path
from typing import Any

import pytest
import yaml

from coalmine.errors import StartError
from coalmine.process import config_file
from coalmine_server.config import ModelConfig
from tests.models import config

WHOLE = """
platform: pytorch_torchscript
max_batch_size: 32
inputs:  [{name: pixels, datatype: FP32, shape: [64]}]
outputs: [{name: logits, datatype: FP32, shape: [10]}]
batching: {max_delay: 2ms, max_queue_rows: 1024}
versions: {latest: 2}
instances: 1
warmup: {batch_sizes: [1, 32], runs: 3}
sha256: {"1": '%s'}
"""


def read(content: dict[str, Any]) -> ModelConfig:
    return config_file.parse(yaml.safe_dump(content), ModelConfig, path=Path("config.yaml"))


def test_every_key_of_the_documentation_is_read() -> None:
    text = WHOLE % ("0" * 64)
    found = config_file.parse(text, ModelConfig, path=Path("config.yaml"))
    assert found.batching.max_delay == 2_000_000
    assert (found.queue_rows_max, found.rows_max, found.instances) == (1024, 32, 1)
    assert (found.warmup_sizes, found.warmup.runs) == ((1, 32), 3)
    assert found.sha256 == {"1": "0" * 64}
    assert found.versions.latest == 2


def test_what_is_left_out_has_a_default() -> None:
    found = read(config())
    assert (found.batching.max_delay, found.queue_rows_max) == (0, 1024)
    assert (found.warmup_sizes, found.warmup.runs, found.instances) == ((1, 32), 3, 1)


def test_without_a_batch_dimension_one_row_is_warmed() -> None:
    found = read(config(max_batch_size=0))
    assert (found.rows_max, found.warmup_sizes) == (1, (1,))


def test_a_queue_holds_at_least_one_whole_batch_by_default() -> None:
    assert read(config(max_batch_size=4096)).queue_rows_max == 4096


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"batching": {"max_dely": "2ms"}}, "batching.max_dely: unknown key"),
    "unknown key in a list": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "dims": 1}]},
        "inputs.0.dims: unknown key",
    ),
    "platform": ({"platform": "onnx"}, "platform: input should be 'pytorch_torchscript'"),
    "batch size": ({"max_batch_size": -1}, "max_batch_size: input should be greater than or equal"),
    "datatype": (
        {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [1]}]},
        "inputs.0.datatype: expected one of BOOL, ",
    ),
    "no input that has to come": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "optional": True}]},
        "inputs: expected at least one that is not optional",
    ),
    "optional output": (
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "optional": True}]},
        "outputs: 'y' is optional, which only inputs can be",
    ),
    "device": ({"device": "gpu"}, "device: "),
    "size": (
        {"outputs": [{"name": "x", "datatype": "FP32", "shape": [0]}]},
        "outputs.0.shape.0: expected a size above 0, or -1",
    ),
    "twice": (
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}] * 2},
        "tensor 'x' is declared twice",
    ),
    "delay": ({"batching": {"max_delay": "fast"}}, "batching.max_delay: expected a duration"),
    "small queue": ({"batching": {"max_queue_rows": 8}}, "at least max_batch_size (32), got 8"),
    "two policies": ({"versions": {"latest": 1, "all": True}}, "versions: expected one of"),
    "no policy": ({"versions": {}}, "versions: expected one of latest: N, all: true, only:"),
    "none": ({"versions": {"only": []}}, "versions.only: "),
    "warm-up": (
        {"warmup": {"batch_sizes": [64]}},
        "warmup.batch_sizes: 64 is over the limit of 32",
    ),
    "hash": ({"sha256": {"1": "abc"}}, "sha256.1: string should match pattern"),
    "version": ({"sha256": {"one": "0" * 64}}, "sha256.one"),
    "instances": ({"instances": 0}, "instances: input should be greater than or equal to 1"),
}


@pytest.mark.parametrize(("change", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_config_names_the_place_and_what_was_expected(
    change: dict[str, Any], text: str
) -> None:
    with pytest.raises(StartError) as refusal:
        read({**config(), **change})
    assert text in str(refusal.value)
    assert str(refusal.value).startswith("config.yaml: ")
    assert "\n" not in str(refusal.value)


def test_a_missing_key_is_named() -> None:
    content = config()
    del content["max_batch_size"]
    with pytest.raises(StartError, match=r"^config.yaml: max_batch_size: missing$"):
        read(content)
