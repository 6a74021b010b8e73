"""Inputs of `coalmine infer`: from the command line to arrays."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from coalmine.command_line.failure import WrongUsage
from coalmine.errors import InvalidTensor
from coalmine.tensors import BYTES, numpy_dtype

Array = NDArray[Any]

# Of (name): the datatype that the model declares.
DatatypeOf = Callable[[str], str]

_HEADER_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_RESERVED: Final = "grpc-"


def read_inputs(texts: Iterable[str], datatype_of: DatatypeOf) -> dict[str, Array]:
    """Return the arrays of `NAME=@x.npy`, `NAME=@x.json` and `NAME=JSON` texts.

    A .npy file is taken as it is; JSON takes the datatype that `datatype_of` gives for its name.
    Raises WrongUsage.
    """
    inputs: dict[str, Array] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise WrongUsage(f"'{text}': expected NAME=@file.npy, NAME=@file.json or NAME=JSON")
        if name in inputs:
            raise WrongUsage(f"input '{name}' is given twice")
        inputs[name] = _read_input(name, value, datatype_of)
    return inputs


def needs_datatypes(texts: Iterable[str]) -> bool:
    """Return whether any of the texts holds JSON, whose datatype only the model can tell."""
    values = [text.partition("=")[2] for text in texts]
    return any(not value.startswith("@") or value.endswith(".json") for value in values)


def _read_input(name: str, value: str, datatype_of: DatatypeOf) -> Array:
    if not value.startswith("@"):
        return array_from_json(name, value, datatype_of(name))
    path = Path(value[1:])
    try:
        if path.suffix == ".json":
            return array_from_json(name, path.read_text(encoding="utf-8"), datatype_of(name))
        return _read_npy(path)
    except OSError as error:
        raise WrongUsage(f"input '{name}': {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise WrongUsage(f"input '{name}': {path} is not UTF-8 text") from None


def _read_npy(path: Path) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        raise WrongUsage(f"{path} is not a .npy file of numbers or text, nor .json") from None
    if not isinstance(loaded, np.ndarray):
        raise WrongUsage(f"{path} holds several arrays, expected a .npy file with one")
    return loaded


# ---------------------------------------------------------------- JSON to arrays, pure


def array_from_json(name: str, text: str, datatype: str) -> Array:
    """Return the nested lists in `text` as an array of `datatype`; nothing is rounded or cut.

    Raises WrongUsage: not JSON, ragged, or values that aren't of the datatype.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise WrongUsage(f"input '{name}' is not JSON: {error}") from None
    try:
        dtype = numpy_dtype(datatype)
    except InvalidTensor as error:
        raise WrongUsage(f"input '{name}': {error}") from None
    try:
        wide = np.array(value)
    except ValueError:
        raise WrongUsage(f"input '{name}': its lists are not of equal length") from None
    return _as_datatype(name, wide, datatype, dtype)


def _as_datatype(name: str, wide: Array, datatype: str, dtype: np.dtype[Any]) -> Array:
    if wide.size and wide.dtype.kind not in _json_kinds(datatype, dtype):
        raise WrongUsage(f"input '{name}' expects {datatype}, got {_kind_in_words(wide)}")
    if dtype.kind in "iu" and wide.size:
        limits = np.iinfo(dtype)
        if wide.min() < limits.min or wide.max() > limits.max:
            raise WrongUsage(f"input '{name}': {datatype} holds {limits.min} to {limits.max}")
    return wide.astype(dtype)


def _json_kinds(datatype: str, dtype: np.dtype[Any]) -> str:
    """Return the kinds of numpy dtype that JSON gives for values of the datatype."""
    if datatype == BYTES:
        return "U"
    return {"b": "b", "i": "iu", "u": "iu"}.get(dtype.kind, "iuf")


def _kind_in_words(array: Array) -> str:
    words = {"b": "booleans", "i": "integers", "u": "integers", "f": "fractions", "U": "text"}
    return words.get(array.dtype.kind, "something else")


# ---------------------------------------------------------------- rows and headers, pure


def split_rows(inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return one request's inputs for each row of the first axis, which is kept with size 1.

    Raises WrongUsage where the inputs have no rows, or not equally many.
    """
    scalars = [name for name, array in inputs.items() if array.ndim == 0]
    if scalars or not inputs:
        raise WrongUsage(f"--rows: input '{scalars[0] if scalars else ''}' has no rows")
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise WrongUsage(f"--rows: the inputs have different numbers of rows: {counts}")
    rows = next(iter(counts.values()))
    if not rows:
        raise WrongUsage("--rows: the inputs have no rows")
    return [{name: array[at : at + 1] for name, array in inputs.items()} for at in range(rows)]


def read_headers(texts: Iterable[str]) -> list[tuple[str, str | bytes]]:
    """Return the metadata of KEY=VALUE texts; of keys that end in -bin, as bytes.

    Raises WrongUsage for what gRPC would refuse to send.
    """
    return [_parse_header(text) for text in texts]


def _parse_header(text: str) -> tuple[str, str | bytes]:
    key, equals, value = text.partition("=")
    key = key.lower()
    if not equals or not _HEADER_KEY.fullmatch(key) or key.startswith(_RESERVED):
        raise WrongUsage(
            f"header '{text}': expected KEY=VALUE, a key of a-z 0-9 _ . - without grpc-"
        )
    if key.endswith("-bin"):
        return key, value.encode()
    if not value.isascii() or not value.isprintable():
        raise WrongUsage(f"header '{key}': only a key that ends in -bin may hold more than ASCII")
    return key, value
