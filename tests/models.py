"""Tiny TorchScript models for all tests, scripted into files and into whole repositories.

Run as a program, in a process without torch's deprecation warnings as errors:
`python -m tests.models FOLDER` writes the repository of `write_repository`.
"""

import hashlib
import io
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

PIXELS = {"name": "pixels", "datatype": "FP32", "shape": [64]}
LOGITS = {"name": "logits", "datatype": "FP32", "shape": [10]}

IDENTITY_DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64"),
)


class Linear(nn.Module):
    """[64] -> [10]: output i is the sum of the pixels, times (i + scale)."""

    factors: Tensor

    def __init__(self, scale: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("factors", torch.arange(10, dtype=torch.float32) + scale)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.sum(1, keepdim=True) * self.factors


class Mlp(nn.Module):
    """[64] -> 256 -> [10], with seeded weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels)
        return logits


class Identity(nn.Module):
    """Gives back what it gets, one input for each datatype."""

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
        l: Tensor,  # noqa: E741 - the thirteenth of thirteen
        m: Tensor,
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
        Tensor,
        Tensor,
    ]:
        return a, b, c, d, e, f, g, h, i, j, k, l, m


class Raises(nn.Module):
    """[64] -> [10]; raises where a pixel is below zero, so warm-up with zeros succeeds."""

    def forward(self, pixels: Tensor) -> Tensor:
        if float(pixels.min()) < 0:
            raise ValueError("negative pixel")
        return pixels[:, :10]


class Slow(nn.Module):
    """[64] -> [10]; spins for as many rounds as its first pixel says (a round is about 1 µs)."""

    def forward(self, pixels: Tensor) -> Tensor:
        answer = pixels[:, :10].clone()
        for _ in range(int(pixels[0, 0])):
            answer = answer + 0.0
        return answer


class LongWarmUp(nn.Module):
    """[64] -> [10]; takes so many rounds for zeros, so in its warm-up (a round is about 1 µs)."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def forward(self, pixels: Tensor) -> Tensor:
        answer = pixels[:, :10].clone()
        if bool(pixels.sum() == 0):
            for _ in range(self.rounds):
                answer = answer + 0.0
        return answer


class Sequences(nn.Module):
    """[-1] -> [-1]: a variable size, and two outputs by name."""

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"length": torch.full_like(tokens[:, :1], tokens.shape[1]), "doubled": tokens * 2}


class Lies(nn.Module):
    """Gives [9] where [10] is declared."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, :9]


class Unbatched(nn.Module):
    """[-1, 2] -> []: no batch dimension, and a scalar."""

    def forward(self, points: Tensor) -> Tensor:
        return points.sum()


class Words(nn.Module):
    """BYTES [1] -> BYTES [1] and [1]: each word in capitals, and its length."""

    def forward(self, words: list[str]) -> tuple[list[str], Tensor]:
        shouted: list[str] = []
        lengths: list[int] = []
        for word in words:
            shouted.append(word.upper())
            lengths.append(len(word))
        return shouted, torch.tensor(lengths).reshape(-1, 1)


class Masked(nn.Module):
    """[-1] and, where it is there, a mask -> []: the sum of what the mask leaves."""

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            values = values * mask
        return values.sum(1)


class Overwrites(nn.Module):
    """[64] -> [64]: its input, doubled in place."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mul_(2)


class Remembers(nn.Module):
    """[1] -> [1]: gives its own buffer, which holds the last value it saw."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.last.copy_(x[:1])
        return self.last


def scripted(module: nn.Module) -> bytes:
    """Return what torch.jit.save writes for the module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what coalmine serves
        script: Any = torch.jit.script
        save: Any = torch.jit.save
        buffer = io.BytesIO()
        save(script(module.eval()), buffer)
    return buffer.getvalue()


def config(
    *,
    inputs: list[dict[str, Any]] | None = None,
    outputs: list[dict[str, Any]] | None = None,
    max_batch_size: int = 32,
    **more: Any,
) -> dict[str, Any]:
    """Return the content of a config.yaml; by default for [64] -> [10]."""
    return {
        "platform": "pytorch_torchscript",
        "max_batch_size": max_batch_size,
        "inputs": inputs or [PIXELS],
        "outputs": outputs or [LOGITS],
        **more,
    }


def write_model(
    root: Path, name: str, versions: Mapping[int, nn.Module], content: dict[str, Any] | None = None
) -> Path:
    """Write a model's folder with its hashes; return it."""
    folder = root / name
    hashes = {}
    for number, module in versions.items():
        data = scripted(module)
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "model.pt").write_bytes(data)
        hashes[str(number)] = hashlib.sha256(data).hexdigest()
    written = {"sha256": hashes, **(content or config())}
    (folder / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    return folder


def identity_config() -> dict[str, Any]:
    """Return the config of Identity: x_bool -> y_bool, x_uint8 -> y_uint8, …, each [2]."""
    return config(
        inputs=[
            {"name": f"x_{each.lower()}", "datatype": each, "shape": [2]}
            for each in IDENTITY_DATATYPES
        ],
        outputs=[
            {"name": f"y_{each.lower()}", "datatype": each, "shape": [2]}
            for each in IDENTITY_DATATYPES
        ],
    )


def write_repository(root: Path) -> Path:
    """Write `digits` 1 and 2 (version 2 answers a little differently), and return `root`."""
    return write_model(
        root,
        "digits",
        {1: Linear(), 2: Linear(scale=0.001)},
        config(versions={"latest": 2}, batching={"max_delay": "0s"}),
    ).parent


if __name__ == "__main__":
    print(write_repository(Path(sys.argv[1])))
