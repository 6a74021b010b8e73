"""The models that are served: `python -m benchmarks.model NAME FILE`, scripted."""

import sys
import warnings

import torch
from torch import Tensor, nn


class Layers(nn.Module):
    """[rows, …] to [rows, 10]."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def small() -> nn.Module:
    """FP32 [64]: what the server's front end costs."""
    return Layers(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def image() -> nn.Module:
    """FP32 [3, 224, 224]: what the payload costs."""
    return Layers(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3 * 7 * 7, 10))


def wide() -> nn.Module:
    """FP32 [1024]: what the model costs, and what batching saves."""
    hidden = (nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU())
    return Layers(*hidden, nn.Linear(4096, 10))


MODELS = {"small": small, "image": image, "wide": wide}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    module = MODELS[sys.argv[1]]().eval()
    torch.jit.script(module).save(sys.argv[2])  # type: ignore[no-untyped-call]  # torch has no types here
