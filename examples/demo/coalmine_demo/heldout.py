"""The images that were held out of training, and what each model answers for them locally.

Files in the training folder: `VARIANT.pt`, `VARIANT.logits.npy` FP32 [images, 10],
`VARIANT.label.npy` INT64 [images], `pixels.npy` FP32 [images, 64], `labels.npy` INT64 [images].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

VARIANTS: Final = ("stable", "canary", "int8", "broken")
IMAGES: Final = 600
PIXELS_FILE: Final = "pixels.npy"
LABELS_FILE: Final = "labels.npy"


@dataclass(frozen=True, slots=True)
class LocalAnswers:
    """One model's answers: logits FP32 [images, 10], label INT64 [images]."""

    logits: NDArray[Any]
    label: NDArray[Any]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pixels FP32 [images, 64], true labels INT64 [images], and each variant's answers."""

    pixels: NDArray[Any]
    labels: NDArray[Any]
    answers: Mapping[str, LocalAnswers]


def model_file(variant: str) -> str:
    """Return the name of a variant's TorchScript file."""
    return f"{variant}.pt"


def answers_files(variant: str) -> tuple[str, str]:
    """Return the names of a variant's files of logits and of labels."""
    return f"{variant}.logits.npy", f"{variant}.label.npy"


def load_heldout(folder: Path) -> HeldOut:
    """Return what training left in `folder`."""
    answers = {
        variant: LocalAnswers(*(np.load(folder / name) for name in answers_files(variant)))
        for variant in VARIANTS
    }
    return HeldOut(np.load(folder / PIXELS_FILE), np.load(folder / LABELS_FILE), answers)
