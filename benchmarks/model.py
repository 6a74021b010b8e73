"""The model that is served: `python -m benchmarks.model FILE`. MLP 64 → 256 → 10, scripted."""

import sys
import warnings

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """[rows, 64] to [rows, 10]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.jit.script(Small().eval()).save(sys.argv[1])  # type: ignore[no-untyped-call]  # torch has no types here
