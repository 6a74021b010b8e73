"""The interface between the server and a model format."""

from collections.abc import Sequence
from typing import Protocol

from coalmine.tensors import Array
from coalmine_server.signature import Arrays, Signature


class Program(Protocol):
    """A loaded model. Used by one thread only: a module may keep state."""

    @property
    def nbytes(self) -> int:
        """How much memory its parameters and buffers take."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: cpu, or cuda:N."""
        ...

    def run(self, inputs: Arrays) -> Sequence[Array]:
        """Return the outputs in the declared order; one of BYTES as a flat array of `bytes`.

        An input may be a read-only view of its request's message, and is overwritten where the
        model writes into it. An output may be the model's own memory: it is read before the next
        run. Raises ModelFailed, whose text names no model: the caller knows it.
        """
        ...

    def close(self) -> None:
        """Release the model's memory; it runs no more."""
        ...


class Runtime(Protocol):
    """A format that models come in."""

    def use_threads(self, count: int) -> None:
        """Let the calling thread's runs use `count` cores."""
        ...

    def load(self, data: bytes, signature: Signature, device: str, instance: int) -> Program:
        """Return the program that `data` holds, for the `instance`-th thread of its version.

        `device` is auto, cpu, cuda or cuda:N. Raises StartError in one line.
        """
        ...
