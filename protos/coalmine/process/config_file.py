"""Read a YAML file into a pydantic model; a wrong file is one line that names the place.

`Duration`, `Percent` and `Size` are the field types that coalmine's files share.
"""

import contextlib
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from coalmine.errors import StartError
from coalmine.process.text_file import content_of
from coalmine.shares import percent_bp
from coalmine.shown_value import short_repr
from coalmine.units import DURATION, SIZE, duration_ns, size_bytes

Model = TypeVar("Model", bound=BaseModel)

_MERGE: Final = "tag:yaml.org,2002:merge"
# Names of Python's, which say nothing to whoever wrote the file.
_CLASSES: Final = re.compile(r" or (?:instance of \w+|object to extract fields from)")
_BOUNDS: Final = frozenset({"gt", "ge", "lt", "le"})
# What aliases may add to a file's size, in nodes and characters: far more than any file needs.
_EXPANSION_MAX: Final = 100_000
# Far below where libyaml's own recursion, in C, would end the process.
_FAST_DEPTH_MAX: Final = 100


class Strict(BaseModel):
    """A part of a file: frozen once read, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Duration = Annotated[int, BeforeValidator(duration_ns)]
Size = Annotated[int, BeforeValidator(size_bytes)]
Percent = Annotated[int, BeforeValidator(percent_bp)]


def load(path: Path, model: type[Model]) -> Model:
    """Return the file's content as `model`.

    Raises StartError for a file that can't be read, isn't YAML or doesn't fit, with the path of the
    first wrong key, what was expected and how many more there are.
    """
    return parse(content_of(path), model, path=path)


def parse(text: str, model: type[Model], *, path: Path) -> Model:
    """Return `text`, the content of `path` or what is to be, as `model`. Raises StartError."""
    try:
        content = _parse_yaml(text)
    except yaml.YAMLError as error:
        raise StartError(f"{path}: not YAML: {_yaml_place(error)}") from None
    except (ValueError, RecursionError) as error:  # a number or date that is none, or too deep
        raise StartError(f"{path}: not YAML: {error}") from None
    try:
        return model.model_validate(content if content is not None else {})
    except ValidationError as error:
        raise StartError(f"{path}: {first_line(error)}") from None


def _parse_yaml(text: str) -> Any:
    """Return what YAML says. Raises YAMLError where its aliases make much more than its text."""
    with contextlib.suppress(yaml.YAMLError):  # told below, in the words that are documented
        if _FastLoader is not None and _nesting_depth(_FastLoader(text)) <= _FAST_DEPTH_MAX:
            return _load_document(_FastLoader(text), text)
    return _load_document(_Loader(text), text)


def _nesting_depth(events: Any) -> int:
    """Return how deep a file nests, or the first depth over the maximum. Raises YAMLError."""
    depth = deepest = 0  # libyaml needs the square of the depth: reading on would take minutes
    while deepest <= _FAST_DEPTH_MAX and (event := events.get_event()) is not None:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            deepest = max(deepest, depth)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return deepest


def _load_document(loader: Any, text: str) -> Any:
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _expanded_size(root, {}) > len(text) + _EXPANSION_MAX:
            raise ConstructorError(None, None, "its aliases expand too far; write it out", None)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the nodes and characters of `node` with each alias written out.

    `known` has a size for every node seen so far; one that holds itself is too large.
    """
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        size = 1 + len(node.value)
    else:
        known[id(node)] = 2 * _EXPANSION_MAX + node.end_mark.index  # until it is known
        parts = (part for each in node.value for part in _nodes_of_entry(each))
        size = 1 + sum(_expanded_size(part, known) for part in parts)
    known[id(node)] = size
    return size


def _nodes_of_entry(entry: Any) -> tuple[yaml.Node, ...]:
    """Return the nodes of a sequence's or a mapping's entry."""
    return entry if isinstance(entry, tuple) else (entry,)


class _OneKeyOnce(SafeConstructor):
    """YAML as its standard has it: a key that comes twice is an error; PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: dict[str, int] = {}
        for key, _ in node.value:
            # As text: 1 and "1" are the same key in every file of coalmine's.
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                problem = f"key '{key.value:.100}' is there twice, first in line {seen[key.value]}"
                raise ConstructorError(None, None, problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Loader(_OneKeyOnce, yaml.SafeLoader):
    """Reads in Python alone."""


_FastLoader: Any = None
with contextlib.suppress(ImportError):  # where PyYAML was built without libyaml
    from yaml._yaml import CParser

    class _ByLibyaml(CParser, _OneKeyOnce, Resolver):
        """Reads a file that isn't deep in a quarter of the time; a deep one overflows the stack."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _OneKeyOnce.__init__(self)
            Resolver.__init__(self)
            # A file says the same words again and again.
            self.resolve = cache(self.resolve)  # type: ignore[method-assign]

    _FastLoader = _ByLibyaml


def _yaml_place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "can't be read"
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)


def first_line(error: ValidationError) -> str:
    """Return the first thing that is wrong, where, and how many more there are."""
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _problem_text(details[0]) + more


def _problem_text(detail: ErrorDetails) -> str:
    place = ".".join(f"{part!s:.100}" for part in detail["loc"]) or "the file"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{place}: unknown key"
    if kind == "missing":
        return f"{place}: missing"
    if kind == "union_tag_not_found":  # its context has the key, in quotation marks
        return f"{place}.{detail['ctx']['discriminator'].strip(chr(39))}: missing"
    message = _without_classes(_message_in_units(detail)).removeprefix("Value error, ")
    if kind in {"value_error", "assertion_error"}:
        return f"{place}: {message}"
    return f"{place}: {message[:1].lower()}{message[1:]}, got {short_repr(detail['input'])}"


def _without_classes(message: str) -> str:
    return _CLASSES.sub("", message)


def _message_in_units(detail: ErrorDetails) -> str:
    """Return the message; a bound of a duration or size in units, as the file has it."""
    bounds = [value for name, value in detail.get("ctx", {}).items() if name in _BOUNDS]
    if not bounds or not isinstance(detail["input"], str):
        return detail["msg"]
    return detail["msg"].replace(f"{bounds[0]}", _bound_text(bounds[0], detail["input"]))


def _bound_text(bound: int, written: str) -> str:
    if DURATION.fullmatch(written.strip()):
        return f"{bound / 10**9:g}s"
    return f"{bound / 1024**2:g}MiB" if SIZE.fullmatch(written.strip()) else f"{bound}"
