"""Arrays to the inputs of a TorchScript module, and its outputs to arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
import torch

from coalmine.errors import ModelFailed
from coalmine.tensors import BYTES, Array
from coalmine_server.signature import Arrays, Signature, TensorSpec

_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
# Small ones are copied: CPython shares one-byte strings, and a module may write into its input.
_COPIED_BYTES: Final = 4096


def as_input(array: Array | None, device: torch.device | None) -> torch.Tensor | list[str] | None:
    """Return an array as a module takes it: a tensor, strings, or None where it is absent.

    `device` is None for the CPU. There a large array isn't copied, unless it is unaligned: raw
    contents begin anywhere in their message, and torch's kernels rely on alignment. So a module
    that writes into its input writes into its request's own message, which is not read again, or
    into a batch's array, which was made for this run.
    """
    if array is None:
        return None
    if array.dtype.hasobject:
        texts: list[str] = array.reshape(-1).tolist()
        return texts
    if array.nbytes <= _COPIED_BYTES or not array.flags.aligned:
        array = array.copy()
    if array.dtype == _BFLOAT16:
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor if device is None else tensor.to(device)


def spend_one_time_warning() -> None:
    """Make torch warn now that arrays over a message's bytes are read-only: it does so once."""
    torch.from_numpy(np.frombuffer(b"\0", dtype=np.uint8))


# ---------------------------------------------------------------- answers


def arrays_of(answer: object, signature: Signature, inputs: Arrays) -> list[Array]:
    """Return a module's answer as arrays in the declared order, on the CPU.

    It gives one output, several in order, or a dict or NamedTuple by name; of strings, a flat list
    in row-major order, which is shaped as declared. Raises ModelFailed.
    """
    if isinstance(answer, torch.Tensor) and len(signature.outputs) == 1:
        return [_array_of(answer)]
    found = _outputs_in_order(answer, signature.outputs)
    if len(found) != len(signature.outputs):
        raise ModelFailed(f"expected {len(signature.outputs)} outputs, the model gave {len(found)}")
    return [
        _array_of(one) if isinstance(one, torch.Tensor) else _bytes_of(spec, one, signature, inputs)
        for spec, one in zip(signature.outputs, found, strict=True)
    ]


def _outputs_in_order(answer: object, specs: Sequence[TensorSpec]) -> Sequence[object]:
    answer = _named_tuple_as_dict(answer, specs)
    if isinstance(answer, Mapping):
        missing = [spec.name for spec in specs if spec.name not in answer]
        if missing:
            raise ModelFailed(f"the model gave no output '{missing[0]}'")
        return [answer[spec.name] for spec in specs]
    if isinstance(answer, list) and len(specs) == 1 and specs[0].datatype == BYTES:
        return [answer]
    return answer if isinstance(answer, (list, tuple)) else [answer]


def _named_tuple_as_dict(answer: object, specs: Sequence[TensorSpec]) -> object:
    """Return a NamedTuple as a dict; as it is where none of its fields is a declared output."""
    fields = getattr(answer, "_fields", ())
    if not isinstance(answer, tuple) or not any(spec.name in fields for spec in specs):
        return answer
    return dict(zip(fields, answer, strict=True))


def _array_of(tensor: torch.Tensor) -> Array:
    if tensor.is_cuda:
        tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(_BFLOAT16)
    try:
        return tensor.numpy()
    except RuntimeError:  # it has the conjugate or negative bit; to ask lets go of Python's lock
        return tensor.resolve_conj().resolve_neg().numpy()


def _bytes_of(spec: TensorSpec, value: object, signature: Signature, inputs: Arrays) -> Array:
    got = _type_text(value)
    if spec.datatype != BYTES:
        raise ModelFailed(f"output '{spec.name}': expected a tensor, the model gave {got}")
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ModelFailed(f"output '{spec.name}': expected a list of strings, the model gave {got}")
    texts = np.empty(len(value), dtype=object)
    texts[:] = [each.encode() for each in value]
    shape = (_row_count(inputs), *spec.shape[1:]) if signature.batched else spec.shape
    try:
        return texts.reshape(shape)
    except ValueError:
        raise ModelFailed(
            f"output '{spec.name}' is declared BYTES {list(shape)}, "
            f"the model gave {len(value)} strings"
        ) from None


def _row_count(inputs: Arrays) -> int:
    return next(len(each) for each in inputs if each is not None)


def _type_text(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
