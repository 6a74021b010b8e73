"""The declaration of a model, and its config.yaml: a new one, or an edited one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from coalmine.errors import StartError
from coalmine.process import config_file
from coalmine.units import WHOLE, duration_ns
from coalmine_server.config import PLATFORM, ModelConfig, TensorConfig

# A canary stands beside what it may replace.
_LATEST: Final = 2
_SIZE: Final = rf"-?{WHOLE}"
_TENSOR: Final = re.compile(
    rf"([^:]+):([A-Z0-9]+):\[((?:{_SIZE}(?:\s*,\s*{_SIZE})*)?)\](:optional)?"
)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A caller's declaration of a model; None where the config decides."""

    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    max_batch_size: int | None = None
    max_delay: str | None = None
    instances: int | None = None
    latest: int | None = None


def tensor_entry(text: str) -> dict[str, Any]:
    """Return the entry of a config.yaml for NAME:DATATYPE:[SIZES], perhaps with :optional.

    Raises StartError.
    """
    found = _TENSOR.fullmatch(text.strip())
    if found is None:
        raise StartError(f"'{text}' is not a tensor: expected NAME:DATATYPE:[SIZES]")
    sizes = [int(size) for size in found[3].split(",")] if found[3] else []
    entry = {"name": found[1], "datatype": found[2], "shape": sizes}
    return {**entry, "optional": True} if found[4] else entry


def load_or_make_config_text(path: Path, declared: Declaration) -> str:
    """Return the text of the config at `path`; of a new one where there is none.

    Raises StartError where the declaration is incomplete, or contradicts the config.
    """
    if not path.exists():
        return _new_config_text(declared)
    _check_agreement(path, config_file.load(path, ModelConfig), declared)
    return path.read_text(encoding="utf-8")


def text_with_entries(path: Path, text: str, key: str, added: Mapping[str, object]) -> str:
    """Return a config's text with `added` among the entries of `key`; the rest stays.

    Raises StartError where the entries are wrong, or the text can't be edited.
    """
    before = getattr(config_file.parse(text, ModelConfig, path=path), key)
    entries = {**before, **added}
    if entries == before:
        return text
    after = text_with_entry(text, key, entries)
    if _yaml_content(after) != {**_yaml_content(text), key: entries}:
        raise StartError(f"{path}: '{key}' can't be edited as it is written; write it as a block")
    config_file.parse(after, ModelConfig, path=path)
    return after


def text_with_latest(path: Path, text: str, latest: int | None) -> str:
    """Return a config's text that serves the `latest` newest versions; None: the text as it is.

    Raises StartError where the text can't be edited.
    """
    if latest is None or config_file.parse(text, ModelConfig, path=path).versions.latest == latest:
        return text
    entry = {"latest": latest}
    after = text_with_entry(text, "versions", entry)
    if _yaml_content(after) != {**_yaml_content(text), "versions": entry}:
        raise StartError(
            f"{path}: 'versions' can't be edited as it is written; write it as a block"
        )
    config_file.parse(after, ModelConfig, path=path)
    return after


def _yaml_content(text: str) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(text))
    except yaml.YAMLError:
        return {}


def text_with_entry(text: str, key: str, value: Mapping[str, object]) -> str:
    """Return a YAML mapping's text with another `key`; the rest, comments too, stays."""
    entry = yaml.safe_dump(dict(value), default_flow_style=True, sort_keys=False, width=10_000)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for name, node in root.value if isinstance(root, yaml.MappingNode) else []:
        if name.value == key:
            # A block ends, for YAML, after the comments behind it; its last value ends before.
            last = node if node.flow_style else node.value[-1][1]
            start, end = node.start_mark.index, last.end_mark.index
            return f"{text[:start]}{entry.strip()}{text[end:]}"
    return f"{text.rstrip()}\n{key}: {entry.strip()}\n"


def _new_config_text(declared: Declaration) -> str:
    if not declared.inputs or not declared.outputs:
        raise StartError("a new model needs --input and --output, as NAME:DATATYPE:[SIZES]")
    if declared.max_batch_size is None:
        raise StartError("a new model needs --max-batch-size; 0: it has no batch dimension")
    content: dict[str, Any] = {
        "platform": PLATFORM,
        "max_batch_size": declared.max_batch_size,
        "inputs": [tensor_entry(each) for each in declared.inputs],
        "outputs": [tensor_entry(each) for each in declared.outputs],
    }
    if declared.max_delay is not None:
        content["batching"] = {"max_delay": declared.max_delay}
    if declared.instances is not None:
        content["instances"] = declared.instances
    content["versions"] = {"latest": declared.latest or _LATEST}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)


def _check_agreement(path: Path, config: ModelConfig, declared: Declaration) -> None:
    """Raise StartError where the declaration contradicts the config, which all versions share."""
    said: dict[str, tuple[object, object]] = {
        "inputs": (config.inputs, _tensor_configs(declared.inputs)),
        "outputs": (config.outputs, _tensor_configs(declared.outputs)),
        "max_batch_size": (config.max_batch_size, declared.max_batch_size),
        "batching.max_delay": (config.batching.max_delay, _delay_ns(declared.max_delay)),
        "instances": (config.instances, declared.instances),
    }
    for key, (there, given) in said.items():
        if given is not None and given != there:
            raise StartError(f"{path}: {key}: expected {_as_text(there)}, got {_as_text(given)}")


def _tensor_configs(texts: Sequence[str]) -> tuple[TensorConfig, ...] | None:
    try:
        return tuple(TensorConfig(**tensor_entry(each)) for each in texts) or None
    except ValidationError as error:
        raise StartError(f"{', '.join(texts)}: {error.errors()[0]['msg']}") from None


def _delay_ns(text: str | None) -> int | None:
    try:
        return None if text is None else duration_ns(text)
    except ValueError as error:
        raise StartError(f"--max-delay: {error}") from None


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_tensor_text, value))
    return str(value)


def _tensor_text(tensor: TensorConfig) -> str:
    optional = ":optional" if tensor.optional else ""
    return f"{tensor.name}:{tensor.datatype}:{list(tensor.shape)}{optional}"
