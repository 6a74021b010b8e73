"""TorchScript: files become programs, and programs run. Only this folder knows torch."""

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
import torch

from coalmine.errors import ModelFailed, StartError
from coalmine.tensors import Array
from coalmine_server.runtime.conversion import arrays_of, as_input, spend_one_time_warning
from coalmine_server.runtime.devices import CPU, device_of
from coalmine_server.runtime.file_kind import kind_of
from coalmine_server.runtime.forward_schema import check_schema
from coalmine_server.runtime.program import Program
from coalmine_server.runtime.samples import SampleAnswer, answer_samples, are_alike
from coalmine_server.signature import Arrays, Signature

_log = structlog.get_logger(__name__)

_POINTER: Final = "<--- HERE"
_LOADING: Final = threading.Lock()  # warnings' filters belong to the process, not to a thread
_RAISED: Final = re.compile(r"^(?:builtins\.)?([A-Za-z_][\w.]*)(?:: ?(.*))?$", re.MULTILINE)


class TorchScript:
    """Loads files that torch.jit.save wrote."""

    def __init__(self, cuda_count: Callable[[], int] = torch.cuda.device_count) -> None:
        self._cuda_count = cuda_count

    def use_threads(self, count: int) -> None:
        """Let the calling thread's runs use `count` cores; torch keeps this for each thread."""
        torch.set_num_threads(count)

    def load(self, data: bytes, signature: Signature, device: str, instance: int) -> Program:
        """Return the module in `data`, frozen where that answers alike. Raises StartError.

        Each form is loaded anew, one at a time: a module that keeps state begins where its file
        does, and no two copies of its weights are held at once.
        """
        chosen = device_of(device, instance=instance, cuda_count=self._cuda_count())
        own = _answers_then_close(_open_module(data, signature, chosen, freezes=False), signature)
        frozen = _answers_then_close(_open_module(data, signature, chosen, freezes=True), signature)
        alike = are_alike(own, frozen)
        if not alike:
            _log.info("model_not_frozen", reason="its answers frozen are not those of its file")
        return _open_module(data, signature, chosen, freezes=alike)


class _Module:
    """A module's forward alone: cycles in Python's wrappers around it would keep it in memory."""

    def __init__(self, forward: Any, signature: Signature, device: str, nbytes: int) -> None:
        self._forward = forward
        self._signature = signature
        self._target = None if device == CPU else torch.device(device)
        self._inference = torch.inference_mode()  # made once: that is half of its cost
        self.device = device
        self.nbytes = nbytes

    def run(self, inputs: Arrays) -> list[Array]:
        """Return the outputs in the declared order. Raises ModelFailed."""
        target = self._target
        try:
            with self._inference:
                answer = self._forward(*[as_input(each, target) for each in inputs])
                return arrays_of(answer, self._signature, inputs)
        except ModelFailed:
            raise
        except Exception as error:  # whatever a module raises is the module's failure
            raise ModelFailed(_error_text(error)) from error

    def close(self) -> None:
        """Release the model's memory."""
        self._forward = None


# ---------------------------------------------------------------- loading


def _open_module(data: bytes, signature: Signature, device: str, *, freezes: bool) -> _Module:
    with _without_warnings():
        spend_one_time_warning()
        module = _load_module(data, device)
        check_schema(module.forward.schema, signature)
        nbytes = _memory_bytes(module)
        form = _freeze_if_possible(module) if freezes else module
        return _Module(form.forward, signature, device, nbytes)


def _answers_then_close(program: _Module, signature: Signature) -> list[SampleAnswer]:
    """Run a program on the samples and close it; return its answers.

    A module that draws at random answers differently each time, so it stays unfrozen. A seed for
    both forms would be the whole process's: models that serve draw from it too.
    """
    found = answer_samples(program.run, signature)
    program.close()
    return found


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the warning that TorchScript is deprecated: an operator can't change that."""
    with _LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load_module(data: bytes, device: str) -> Any:
    try:
        load: Any = torch.jit.load  # untyped in torch
        return load(io.BytesIO(data), map_location=device).eval()
    except Exception as error:
        kind = kind_of(data) or _error_text(error)
        raise StartError(f"not a TorchScript file: {kind}") from error


def _freeze_if_possible(module: Any) -> Any:
    try:
        return torch.jit.freeze(module)
    except Exception as error:  # noqa: BLE001 - torch raises plain RuntimeError; unfrozen is only slower
        _log.info("model_not_frozen", reason=_error_text(error))
        return module


def _memory_bytes(module: Any) -> int:
    """Return the memory of parameters and buffers; shared memory counts once."""
    held = {each.data_ptr(): each.nbytes for each in (*module.parameters(), *module.buffers())}
    return sum(held.values())


# ---------------------------------------------------------------- errors


def _error_text(error: Exception) -> str:
    """Return the class and the first line of an error.

    TorchScript puts its own traceback before the line, and hides the class that a script raised.
    """
    text = str(error).strip()
    if _POINTER in text:
        found = _RAISED.search(text[text.rindex(_POINTER) + len(_POINTER) :].lstrip("\n"))
        if found is not None:
            return f"{found[1]}: {found[2] or ''}".rstrip(": ")
    first = text.splitlines()[0] if text else ""
    return f"{type(error).__name__}: {first}".rstrip(": ")
