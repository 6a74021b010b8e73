"""The models of the list of calls. `python -m tests.conformance.listed_models FOLDER`."""

import sys
from pathlib import Path

from torch import Tensor, nn

from tests.conformance.listed import LIST
from tests.conformance.repository import sequences_config
from tests.models import Linear, Raises, Sequences, Slow, config, write_model


class Same(nn.Module):
    """Gives back what it gets."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class SameTexts(nn.Module):
    def forward(self, x: list[str]) -> list[str]:
        return x


def write(root: Path) -> None:
    digits = {1: Linear(), 2: Linear(scale=0.001)}
    write_model(root, "digits", digits, config(versions={"latest": 2}))
    write_model(root, "sequences", {1: Sequences()}, sequences_config())
    write_model(root, "slow", {1: Slow()})
    write_model(root, "raises", {1: Raises()})
    write_model(root, "counted", {1: Linear()}, config(max_batch_size=8))
    for datatype in LIST["datatypes"]:
        same = SameTexts() if datatype == "BYTES" else Same()
        tensor = {"datatype": datatype, "shape": [2]}
        both = config(inputs=[{"name": "x", **tensor}], outputs=[{"name": "y", **tensor}])
        write_model(root, f"same_{datatype.lower()}", {1: same}, both)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
