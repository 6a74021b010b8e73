"""Real models of scikit-learn's digits, and what goes wrong with such: what a canary can be.

A process of its own, for torch's threads and warnings: `python -m tests.doubles.cnn FOLDER` writes
FOLDER/models, a repository, and of the images that no model was trained on FOLDER/pixels.npy
FP32 [600, 64], FOLDER/labels.npy INT64 [600] and FOLDER/accuracy.json, by model.

| model | version | what it is |
|---|---|---|
| cnn | 1 | a small convolutional net, FP32 |
| cnn | 2 | the same, its input scaled twice: pixels / 16 / 16 |
| cnn | 3 | the same, its input not scaled at all |
| cnn | 4 | the same net, trained again from another seed |
| cnn-int8 | 1 | the first in 8-bit integers: weights by channel, activations by tensor |
| cnn-batched | 1 | the first, of up to 16 callers at a time |
| cnn-mixing | 1 | the first, its dense layers scaled by what else is in the batch of up to 16 |
"""

# mypy: disable-error-code="no-untyped-call"
# torch leaves half of its functions untyped.

import copy
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.ao import quantization

from coalmine_demo.training import Digits
from coalmine_server.packaging.declaration import Declaration
from coalmine_server.packaging.packager import PackageOrder, Packager
from coalmine_server.runtime.torchscript import TorchScript
from tests.models import scripted

HELD_OUT = 600

_EPOCHS = 8
_ROWS = 64
_ALONE = {"max_batch_size": 1}
_TOGETHER = {"max_batch_size": 16, "max_delay": "2ms"}


class Scored(nn.Module):
    """Pixels [rows, 64] to logits and scores, which are probabilities: both [rows, 10]."""

    def __init__(self, net: Digits) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, _label = self.net(pixels)
        return logits, logits.softmax(1)


@dataclass(frozen=True)
class Split:
    """Pixels FP32 [images, 64], labels INT64 [images]."""

    train_pixels: Tensor
    pixels: Tensor
    train_labels: Tensor
    labels: Tensor


def split() -> Split:
    digits = load_digits()
    images, labels = digits.data.astype(np.float32), digits.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=HELD_OUT, stratify=labels, random_state=1)
    return Split(*map(torch.from_numpy, parts))


def trained(data: Split, seed: int) -> Digits:
    torch.manual_seed(seed)
    net = Digits()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(data.train_pixels)).split(_ROWS):
            optimizer.zero_grad()
            logits, _label = net(data.train_pixels[rows])
            nn.functional.cross_entropy(logits, data.train_labels[rows]).backward()
            optimizer.step()
    net.eval()
    return net


def with_input_scaled_by(net: Digits, pixel_max: float) -> Digits:
    """Return the same weights, behind another scaling of pixels than they were trained with."""
    wrong = copy.deepcopy(net)
    wrong.pixel_max = pixel_max
    return wrong


def in_integers(net: Digits, pixels: Tensor) -> Digits:
    """Return the net with all layers in 8-bit integers, their ranges taken from `pixels`."""
    smaller = copy.deepcopy(net)
    layers = nn.Sequential(quantization.QuantStub(), *smaller.layers, quantization.DeQuantStub())
    smaller.layers = layers.eval()
    quantization.fuse_modules(layers, [["1", "2"], ["3", "4"], ["7", "8"]], inplace=True)
    layers.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    quantization.prepare(layers, inplace=True)
    with torch.inference_mode():
        smaller(pixels)
    quantization.convert(layers, inplace=True)
    return smaller


def mixing_rows(net: Digits) -> Digits:
    """Return the net with dense layers in 8-bit integers whose range is that of each batch."""
    return quantization.quantize_dynamic(copy.deepcopy(net), {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-any-return]


def versions(data: Split) -> dict[tuple[str, int], Digits]:
    net = trained(data, seed=1)
    return {
        ("cnn", 1): net,
        ("cnn", 2): with_input_scaled_by(net, 16.0 * 16.0),
        ("cnn", 3): with_input_scaled_by(net, 1.0),
        ("cnn", 4): trained(data, seed=2),
        ("cnn-int8", 1): in_integers(net, data.train_pixels),
        ("cnn-batched", 1): net,
        ("cnn-mixing", 1): mixing_rows(net),
    }


def package(folder: Path, name: str, version: int, net: Digits) -> None:
    source = folder / f"{name}-{version}.pt"
    source.write_bytes(scripted(Scored(net)))
    batching: dict[str, Any] = _ALONE if name in {"cnn", "cnn-int8"} else _TOGETHER
    declared = Declaration(
        inputs=("pixels:FP32:[64]",),
        outputs=("logits:FP32:[10]", "scores:FP32:[10]"),
        latest=4,
        **batching,
    )
    order = PackageOrder(
        source, folder / "models", name, version, declared, allow_row_mixing=name == "cnn-mixing"
    )
    Packager(TorchScript()).package(order)


def accuracy(net: Digits, data: Split) -> float:
    with torch.inference_mode():
        _logits, label = net(data.pixels)
    return float((label[:, 0] == data.labels).float().mean())


def write(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    data = split()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eager quantisation is deprecated, and what scripts
        for (name, version), net in versions(data).items():
            package(folder, name, version, net)
            found[f"{name} {version}"] = accuracy(net, data)
    np.save(folder / "pixels.npy", data.pixels.numpy())
    np.save(folder / "labels.npy", data.labels.numpy())
    (folder / "accuracy.json").write_text(json.dumps(found))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
