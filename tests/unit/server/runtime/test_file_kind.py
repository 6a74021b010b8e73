"""Files that users take for a model: each is named for what it is, with the way out."""

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import nn

from coalmine.errors import StartError
from coalmine_server.runtime.file_kind import kind_of
from coalmine_server.runtime.torchscript import TorchScript
from coalmine_server.signature import Signature
from tests.models import scripted

WAY_OUT = "torch.jit.trace(model, example).save("


def _saved(save: Callable[[io.BytesIO], Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _zipped(name: str, text: str) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, text)

    return _saved(write)


LAYER = nn.Linear(3, 2)
TORCHSCRIPT = scripted(LAYER)
STATE = _saved(lambda to: torch.save(LAYER.state_dict(), to))
SAFETENSORS = (16).to_bytes(8, "little") + b'{"__metadata__":{}}'

CASES = {
    "a state dict": (STATE, "a state dict", WAY_OUT),
    "a plain dict of tensors": (
        _saved(lambda to: torch.save({"w": torch.ones(2)}, to)),
        "a state dict",
        WAY_OUT,
    ),
    "an older state dict": (
        _saved(lambda to: torch.save(LAYER.state_dict(), to, _use_new_zipfile_serialization=False)),
        "a pickle",
        WAY_OUT,
    ),
    "a whole module": (
        _saved(lambda to: torch.save(LAYER, to)),
        "a pickle of 'torch.nn.modules.linear.Linear'",
        WAY_OUT,
    ),
    "scikit-learn's": (
        pickle.dumps(LogisticRegression()),
        "a pickle of 'sklearn.linear_model._logistic.LogisticRegression'",
        WAY_OUT,
    ),
    "an exported program": (
        _saved(lambda to: torch.export.save(torch.export.export(LAYER, (torch.ones(1, 3),)), to)),
        "an exported program",
        WAY_OUT,
    ),
    "cut off": (TORCHSCRIPT[:-200], "damaged or cut off", "copy it again"),
    "an archive of texts": (_zipped("a.txt", "text"), "holds no module", WAY_OUT),
    "safetensors": (SAFETENSORS, "safetensors", WAY_OUT),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x05" + b"2.5.0", "an ONNX model", WAY_OUT),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
    "a page": (b"<!doctype html><title>404</title>", "an HTML page", "went wrong"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 20, "gzip", "unpack"),
    "nothing": (b"", "it is empty", ""),
}


@pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_what_is_no_torchscript_is_named_with_the_way_out(case: tuple[bytes, str, str]) -> None:
    data, kind, remedy = case
    with pytest.raises(StartError) as refusal:
        TorchScript().load(data, Signature("m", 1, 1, (), ()), "cpu", 0)
    said = str(refusal.value)
    assert said.startswith("not a TorchScript file: ")
    assert kind in said
    assert remedy in said
    assert "\n" not in said


def test_a_torchscript_is_left_to_torch() -> None:
    assert kind_of(TORCHSCRIPT) == ""


def test_an_archive_that_unpacks_to_much_is_read_to_its_bound() -> None:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/data.pkl", b"\x80\x02" + b"N0" * 50_000_000)

    assert kind_of(_saved(write)).startswith("a pickle")


@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x04", b"\x08"]))
def test_no_bytes_make_it_fail(data: bytes, start: bytes) -> None:
    assert "\n" not in kind_of(start + data)


@given(st.integers(0, len(STATE)), st.integers(0, 255))
def test_no_change_of_a_real_file_makes_it_fail(at: int, byte: int) -> None:
    changed = np.frombuffer(STATE, np.uint8).copy()
    changed[at % len(STATE)] = byte
    assert isinstance(kind_of(changed.tobytes()[: at + 1]), str)
