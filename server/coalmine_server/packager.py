"""A TorchScript file becomes a version of a model: tried first, then put there in one step."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from coalmine import config_file
from coalmine.errors import StartError
from coalmine_server.config import PLATFORM, ModelConfig, TensorConfig
from coalmine_server.repository import CONFIG_FILE, MODEL_FILE, is_name
from coalmine_server.runtime.execution import open_program
from coalmine_server.runtime.program import Runtime
from coalmine_server.signature import Signature

# A canary stands beside what it may replace.
_LATEST: Final = 2
_TENSOR: Final = re.compile(r"([^:]+):([A-Z0-9]+):\[((?:-?\d+(?:\s*,\s*-?\d+)*)?)\]")


@dataclass(frozen=True, slots=True)
class Declared:
    """What the caller says of the model; None where it is left to the config that is there."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    max_batch_size: int | None
    max_delay: str | None
    instances: int | None
    latest: int | None = None


@dataclass(frozen=True, slots=True)
class Packaged:
    """Where the version went, and what its bytes hash to."""

    path: Path
    sha256: str


def package(
    source: Path,
    *,
    repository: Path,
    name: str,
    version: int,
    declared: Declared,
    runtime: Runtime,
) -> Packaged:
    """Put `source` into the repository as a version, with its hash in the model's config.

    Raises StartError, and changes nothing: a wrong name, a version that is there, a signature that
    the model's other versions don't have, or a file that doesn't run as declared.
    """
    _check_place(repository, name, version)
    data = _bytes_of(source)
    sha256 = hashlib.sha256(data).hexdigest()
    folder = repository / name
    text = _config_text(folder / CONFIG_FILE, declared, version, sha256)
    config = config_file.parse(text, ModelConfig, path=folder / CONFIG_FILE)
    open_program(runtime, Signature.of(name, version, config), config, data, source=source)
    try:
        _put(folder, version, data, text)
    except OSError as error:
        raise StartError(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    return Packaged(folder / str(version) / MODEL_FILE, sha256)


def tensor_of(text: str) -> dict[str, Any]:
    """Return the entry of a config.yaml for NAME:DATATYPE:[SIZES]. Raises StartError."""
    found = _TENSOR.fullmatch(text.strip())
    if found is None:
        raise StartError(f"'{text}' is not a tensor: expected NAME:DATATYPE:[SIZES]")
    sizes = [int(size) for size in found[3].split(",")] if found[3] else []
    return {"name": found[1], "datatype": found[2], "shape": sizes}


def _check_place(repository: Path, name: str, version: int) -> None:
    if not is_name(name):
        raise StartError(f"'{name}' is not a model's name: A-Z, a-z, 0-9, . _ - and no dot first")
    if version < 1:
        raise StartError(f"version {version}: expected a positive integer")
    root, folder = repository.resolve(), (repository / name).resolve()
    if folder.parent != root:
        raise StartError(f"{repository / name}: leads out of the repository, to {folder}")
    if (folder / str(version)).exists():
        raise StartError(f"{repository / name / str(version)}: is there already; take a new number")


def _bytes_of(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise StartError(f"{source}: {(error.strerror or str(error)).lower()}") from None


# ---------------------------------------------------------------- the config


def _config_text(path: Path, declared: Declared, version: int, sha256: str) -> str:
    if not path.exists():
        return _new_config(declared, version, sha256)
    config = config_file.load(path, ModelConfig)
    _check_agreement(path, config, declared)
    hashes = {**config.sha256, str(version): sha256}
    return with_hashes(path.read_text(encoding="utf-8"), hashes)


def _new_config(declared: Declared, version: int, sha256: str) -> str:
    if not declared.inputs or not declared.outputs:
        raise StartError("a new model needs --input and --output, as NAME:DATATYPE:[SIZES]")
    if declared.max_batch_size is None:
        raise StartError("a new model needs --max-batch-size; 0: it has no batch dimension")
    content: dict[str, Any] = {
        "platform": PLATFORM,
        "max_batch_size": declared.max_batch_size,
        "inputs": [tensor_of(each) for each in declared.inputs],
        "outputs": [tensor_of(each) for each in declared.outputs],
    }
    if declared.max_delay is not None:
        content["batching"] = {"max_delay": declared.max_delay}
    if declared.instances is not None:
        content["instances"] = declared.instances
    content["versions"] = {"latest": declared.latest or _LATEST}
    content["sha256"] = {str(version): sha256}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)


def _check_agreement(path: Path, config: ModelConfig, declared: Declared) -> None:
    """Refuse what the caller says otherwise than the config: it holds for all versions."""
    said: dict[str, tuple[object, object]] = {
        "inputs": (config.inputs, _tensors(declared.inputs)),
        "outputs": (config.outputs, _tensors(declared.outputs)),
        "max_batch_size": (config.max_batch_size, declared.max_batch_size),
        "batching.max_delay": (config.batching.max_delay, _delay_ns(declared.max_delay)),
        "instances": (config.instances, declared.instances),
        "versions.latest": (config.versions.latest, declared.latest),
    }
    for key, (there, given) in said.items():
        if given is not None and given != there:
            raise StartError(f"{path}: {key}: expected {_told(there)}, got {_told(given)}")


def _tensors(texts: Sequence[str]) -> tuple[TensorConfig, ...] | None:
    try:
        return tuple(TensorConfig(**tensor_of(each)) for each in texts) or None
    except ValidationError as error:
        raise StartError(f"{', '.join(texts)}: {error.errors()[0]['msg']}") from None


def _delay_ns(text: str | None) -> int | None:
    try:
        return None if text is None else config_file.duration_ns(text)
    except ValueError as error:
        raise StartError(f"--max-delay: {error}") from None


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each.name}:{each.datatype}:{list(each.shape)}" for each in value)
    return str(value)


def with_hashes(text: str, hashes: dict[str, str]) -> str:
    """Return a config's text with another `sha256` entry; the rest, comments too, stays."""
    entry = yaml.safe_dump(hashes, default_flow_style=True, width=10_000).strip()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value == "sha256":
            # A block ends, for YAML, after the comments behind it; its last value ends before.
            last = value if value.flow_style else value.value[-1][1]
            start, end = value.start_mark.index, last.end_mark.index
            return f"{text[:start]}{entry}{text[end:]}"
    return f"{text.rstrip()}\nsha256: {entry}\n"


# ---------------------------------------------------------------- the disk


def _put(folder: Path, version: int, data: bytes, config: str) -> None:
    """Write beside the place, then rename: whoever looks sees all of it or nothing."""
    with _scratch(folder) as scratch:
        fresh = scratch / "model"
        _write(fresh / str(version) / MODEL_FILE, data)
        _write(fresh / CONFIG_FILE, config.encode())
        if not folder.exists():
            fresh.rename(folder)
            return
        # The hash first: a version without one would be served unchecked.
        (fresh / CONFIG_FILE).replace(folder / CONFIG_FILE)
        (fresh / str(version)).rename(folder / str(version))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
