"""The interface between the server and a model format."""

from collections.abc import Sequence
from typing import Protocol

from coalmine.tensors import Array


class Program(Protocol):
    """A loaded model. Used by one thread only: a module may keep state."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs in the declared order.

        Raises ModelFailed, whose text names no model: the caller knows it.
        """
        ...


class Runtime(Protocol):
    """A format that models come in."""

    def use_threads(self, count: int) -> None:
        """Let the calling thread's runs use `count` cores."""
        ...

    def load(self, data: bytes, output_names: Sequence[str]) -> Program:
        """Return the program that `data` holds. Raises StartError in one line."""
        ...
