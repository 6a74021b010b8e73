"""Repositories of models that print: `python -m tests.doubles.printing_models FOLDER`."""

import sys
import warnings
from pathlib import Path

from torch import Tensor, nn

from tests.models import config, write_model

OUTPUT = [{"name": "logits", "datatype": "FP32", "shape": [64]}]


class Loud(nn.Module):
    """[64] -> [64], and prints what it is asked for."""

    def forward(self, pixels: Tensor) -> Tensor:
        print("loud", pixels.shape)
        print("asked for", int(pixels.sum().item()))
        return pixels + 1.0


class Warns(nn.Module):
    """[64] -> [64], with a warning in red."""

    def forward(self, pixels: Tensor) -> Tensor:
        warnings.warn("\x1b[31mcareful", stacklevel=1)
        return pixels + 1.0


class Hangs(nn.Module):
    """[64] -> [64], never; says so first."""

    def forward(self, pixels: Tensor) -> Tensor:
        print("forward begun")
        while bool(pixels.sum() > -1.0e9):
            pixels = pixels + 0.0
        return pixels


def write_repository(root: Path) -> None:
    """Write those that answer into `root`, and the one that doesn't into one of its own."""
    for name, module in (("loud", Loud()), ("warns", Warns())):
        write_model(root / "answering", name, {1: module}, config(outputs=OUTPUT))
    write_model(root / "hanging", "hangs", {1: Hangs()}, config(outputs=OUTPUT))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_repository(Path(sys.argv[1]))
