"""The models that foreign clients call. `python -m tests.conformance.repository FOLDER`."""

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tests.models import (
    PIXELS,
    Identity,
    Linear,
    Raises,
    Sequences,
    Slow,
    config,
    identity_config,
    write_model,
)

# FP16 and BF16 have no typed contents.
TYPED_DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP32", "FP64"),
)


class Typed(nn.Module):
    """Gives back what it gets, one input for each datatype that has typed contents."""

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        e: Tensor,
        f: Tensor,
        g: Tensor,
        h: Tensor,
        i: Tensor,
        j: Tensor,
        k: Tensor,
    ) -> tuple[
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
    ]:
        return a, b, c, d, e, f, g, h, i, j, k


class Words(nn.Module):
    """Each word twice over."""

    def forward(self, words: list[str]) -> list[str]:
        return [word + word for word in words]


class Shifted(nn.Module):
    """The pixels, and what may be added to them."""

    def forward(self, pixels: Tensor, shift: Tensor | None) -> Tensor:
        return pixels if shift is None else pixels + shift


def tensors(prefix: str, datatypes: tuple[str, ...], shape: list[int]) -> list[dict[str, Any]]:
    return [
        {"name": f"{prefix}_{each.lower()}", "datatype": each, "shape": shape} for each in datatypes
    ]


def write(root: Path) -> None:
    versions = {1: Linear(), 2: Linear(scale=0.001)}
    labels = {"stable": 1, "canary": 2}
    write_model(root, "digits", versions, config(versions={"latest": 2}, labels=labels))
    write_model(root, "identity", {1: Identity()}, identity_config())
    typed = {prefix: tensors(prefix, TYPED_DATATYPES, [2]) for prefix in ("x", "y")}
    write_model(root, "typed", {1: Typed()}, config(inputs=typed["x"], outputs=typed["y"]))
    word = {"datatype": "BYTES", "shape": [1]}
    words = config(inputs=[{"name": "words", **word}], outputs=[{"name": "twice", **word}])
    write_model(root, "words", {1: Words()}, words)
    write_model(root, "shifted", {1: Shifted()}, shifted_config())
    write_model(root, "sequences", {1: Sequences()}, sequences_config())
    write_model(root, "slow", {1: Slow()})
    write_model(root, "raises", {1: Raises()})
    write_model(root, "counted", {1: Linear()}, config(max_batch_size=8))


def sequences_config() -> dict[str, Any]:
    return config(
        inputs=[{"name": "tokens", "datatype": "INT64", "shape": [-1]}],
        outputs=[
            {"name": "doubled", "datatype": "INT64", "shape": [-1]},
            {"name": "length", "datatype": "INT64", "shape": [1]},
        ],
    )


def shifted_config() -> dict[str, Any]:
    shift = {"name": "shift", "datatype": "FP32", "shape": [1], "optional": True}
    output = {"name": "shifted", "datatype": "FP32", "shape": [64]}
    return config(inputs=[PIXELS, shift], outputs=[output])


if __name__ == "__main__":
    write(Path(sys.argv[1]))
