"""TorchScript: the only place that knows torch."""

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import ml_dtypes
import numpy as np
import structlog
import torch

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import Array
from coalmine_server.runtime.program import Program

_log = structlog.get_logger(__name__)

_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
# Small ones are copied: CPython shares one-byte strings, and a module may write into its input.
_COPIED_BYTES: Final = 4096
_POINTER: Final = "<--- HERE"
_LOADING: Final = threading.Lock()  # warnings' filters belong to the process, not to a thread
_RAISED: Final = re.compile(r"^(?:builtins\.)?([A-Za-z_][\w.]*)(?:: ?(.*))?$", re.MULTILINE)


class TorchScript:
    """Loads files that torch.jit.save wrote, for the CPU."""

    def use_threads(self, count: int) -> None:
        """Let the calling thread's runs use `count` cores; torch keeps this for each thread."""
        torch.set_num_threads(count)

    def load(self, data: bytes, output_names: Sequence[str]) -> Program:
        """Return the module in `data`, frozen where it can be. Raises StartError."""
        with _quiet():
            _spend_one_time_warning()
            return _Module(_frozen(_module(data)), tuple(output_names))


class _Module:
    def __init__(self, forward: Any, output_names: tuple[str, ...]) -> None:
        self._forward = forward
        self._output_names = output_names

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs in the declared order. Raises ModelFailed."""
        try:
            with torch.inference_mode():
                answer = self._forward(*[_tensor(each) for each in inputs])
                return [_array(each) for each in _in_order(answer, self._output_names)]
        except ModelFailed:
            raise
        except Exception as error:  # whatever a module raises is the module's failure
            raise ModelFailed(_cause(error)) from error


# ---------------------------------------------------------------- loading


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence that TorchScript is deprecated, which nobody who runs a server can change."""
    with _LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _spend_one_time_warning() -> None:
    """Make torch say now, once and unheard, that arrays over a message's bytes are read-only."""
    torch.from_numpy(np.frombuffer(b"\0", dtype=np.uint8))


def _module(data: bytes) -> Any:
    try:
        load: Any = torch.jit.load  # untyped in torch
        return load(io.BytesIO(data), map_location="cpu").eval()
    except Exception as error:
        raise StartError(f"not a TorchScript file: {_cause(error)}") from error


def _frozen(module: Any) -> Any:
    try:
        return torch.jit.freeze(module)
    except Exception as error:  # noqa: BLE001 - torch raises plain RuntimeError; unfrozen is only slower
        _log.info("model_not_frozen", reason=_cause(error))
        return module


# ---------------------------------------------------------------- arrays and tensors


def _tensor(array: Array) -> torch.Tensor:
    if array.nbytes <= _COPIED_BYTES:
        array = array.copy()
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: torch.Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(_BFLOAT16)
    return tensor.numpy()


def _in_order(answer: object, names: Sequence[str]) -> list[torch.Tensor]:
    """Return the tensors of a module's answer: one, a tuple or list in order, or a dict by name."""
    if isinstance(answer, torch.Tensor):
        tensors: list[Any] = [answer]
    elif isinstance(answer, Mapping):
        missing = [name for name in names if name not in answer]
        if missing:
            raise ModelFailed(f"the model gave no output '{missing[0]}'")
        tensors = [answer[name] for name in names]
    elif isinstance(answer, Sequence):
        tensors = list(answer)
    else:
        tensors = [answer]
    for each in tensors:
        if not isinstance(each, torch.Tensor):
            raise ModelFailed(f"the model gave a {type(each).__name__}, expected a tensor")
    return tensors


# ---------------------------------------------------------------- errors


def _cause(error: Exception) -> str:
    """Return the class and first line of what was raised.

    TorchScript puts its own traceback before it, and hides the class that a script raised.
    """
    text = str(error).strip()
    if _POINTER in text:
        found = _RAISED.search(text[text.rindex(_POINTER) + len(_POINTER) :].lstrip("\n"))
        if found is not None:
            return f"{found[1]}: {found[2] or ''}".rstrip(": ")
    first = text.splitlines()[0] if text else ""
    return f"{type(error).__name__}: {first}".rstrip(": ")
