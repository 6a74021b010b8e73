"""Trains the demo's models on scikit-learn's digits: `python -m coalmine_demo.training OUT`.

It runs as a process of its own. No other file beside the server's runtime imports torch.
`heldout.py` lists the files that it writes to OUT.
"""

# mypy: disable-error-code="no-untyped-call"
# torch leaves half of its functions untyped.

import argparse
import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.utils import prune

from coalmine_demo.heldout import IMAGES, LABELS_FILE, PIXELS_FILE, answers_files, model_file

_PIXEL_MAX: Final = 16.0
# More only wait for each other: the nets are small, and the machine may be busy.
_THREADS: Final = 1
_BATCH: Final = 64


class Digits(nn.Module):
    """A small convolutional net: pixels [rows, 64] to logits [rows, 10] and label [rows, 1]."""

    def __init__(self, pixel_max: float = _PIXEL_MAX) -> None:
        super().__init__()
        self.pixel_max = pixel_max
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and label; pixels are 0 to 16, as in the data set."""
        logits = self.layers((pixels / self.pixel_max).view(-1, 1, 8, 8))
        return logits, logits.argmax(1, keepdim=True)


@dataclass(frozen=True, slots=True)
class _Split:
    train_pixels: Tensor
    train_labels: Tensor
    pixels: Tensor
    labels: Tensor


def train_all(out: Path, seed: int) -> None:
    """Write the four models, the held-out images and what each model answers for them."""
    torch.set_num_threads(_THREADS)
    out.mkdir(parents=True, exist_ok=True)
    split = _load_split(seed)
    np.save(out / PIXELS_FILE, split.pixels.numpy())
    np.save(out / LABELS_FILE, split.labels.numpy())
    for variant, model in _train_models(split, seed).items():
        path = out / model_file(variant)
        _call_quietly(lambda model=model, path=path: torch.jit.script(model.eval()).save(path))  # type: ignore[misc]
        _save_answers(out, variant, split.pixels)


def _train_models(split: _Split, seed: int) -> dict[str, nn.Module]:
    stable = _train_digits(split, epochs=8, seed=seed)
    canary = _train_digits(split, epochs=24, seed=seed + 1)
    # The mistake to be caught: the net is fine, its input is scaled as if white were 255.
    broken = copy.deepcopy(canary)
    broken.pixel_max = 255.0
    return {"stable": stable, "canary": canary, "int8": _compress(stable), "broken": broken}


def _load_split(seed: int) -> _Split:
    digits = load_digits()
    parts = train_test_split(
        digits.data.astype(np.float32),
        digits.target.astype(np.int64),
        test_size=IMAGES,
        stratify=digits.target,
        random_state=seed,
    )
    train_pixels, pixels, train_labels, labels = map(torch.from_numpy, parts)
    return _Split(train_pixels, train_labels, pixels, labels)


def _train_digits(split: _Split, *, epochs: int, seed: int) -> Digits:
    torch.manual_seed(seed)
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(split.train_pixels)).split(_BATCH):
            optimizer.zero_grad()
            logits, _label = model(split.train_pixels[rows])
            nn.functional.cross_entropy(logits, split.train_labels[rows]).backward()
            optimizer.step()
    return model.eval()


def _compress(model: Digits) -> nn.Module:
    """Return a smaller copy: a quarter of the dense weights pruned, the rest 8-bit integers."""
    smaller = copy.deepcopy(model)
    for layer in smaller.layers:
        if isinstance(layer, nn.Linear):
            prune.l1_unstructured(layer, "weight", amount=0.25)
            prune.remove(layer, "weight")
    quantized: nn.Module = _call_quietly(
        lambda: torch.ao.quantization.quantize_dynamic(smaller, {nn.Linear}, dtype=torch.qint8)
    )
    return quantized


def _save_answers(out: Path, variant: str, pixels: Tensor) -> None:
    """Run the saved file as the server does, image by image: int8 scales by the batch."""
    model = _call_quietly(lambda: torch.jit.load(out / model_file(variant)))
    with torch.inference_mode():
        answers = [model(row) for row in pixels.split(1)]
    logits_file, label_file = answers_files(variant)
    np.save(out / logits_file, torch.cat([logits for logits, _ in answers]).numpy())
    np.save(out / label_file, torch.cat([label for _, label in answers]).numpy()[:, 0])


def _call_quietly(call: Callable[[], Any]) -> Any:
    """Call TorchScript or eager quantisation without torch's warnings of their replacement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(prog="python -m coalmine_demo.training")
    parser.add_argument("out", type=Path, help="folder for models, images and answers")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    train_all(asked.out, asked.seed)


if __name__ == "__main__":
    main()
