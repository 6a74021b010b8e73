"""The section `compare` of a route. docs/comparing.md explains each rule."""

import hashlib
import inspect
import json
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    TypeAdapter,
    model_validator,
)

from coalmine.process.config_file import Strict
from coalmine_router.config.json_path import JsonPath
from coalmine_router.own_rule import OwnRule

RULES_GROUP: Final = "coalmine.rules"

_OUTPUTS_MAX: Final = 1_024
_ORDERED_MAX: Final = 100

_Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class CloseRule(Strict):
    """Equal within tolerances; unset ones depend on the datatype."""

    rule: Literal["close"] = "close"
    rtol: _Distance | None = None
    atol: _Distance | None = None


class ExactRule(Strict):
    """Equal to the bit, NaN to NaN."""

    rule: Literal["exact"]


class RelativeRule(Strict):
    """No element further off than a share of the reference, which counts as `floor` at least.

    Without a floor, any value is infinitely far from a zero.
    """

    rule: Literal["relative"]
    max: _Distance = 0.01
    floor: _Distance = 1e-6


class ArgmaxRule(Strict):
    """The same label on top, or one that the reference puts within `margin` of its top."""

    rule: Literal["argmax"]
    margin: _Distance = 0.0


class TopKRule(Strict):
    """The same k labels on top, at least a share of them; with `order`, in the same order."""

    rule: Literal["top_k"]
    k: Annotated[int, Field(ge=1, le=1_000)]
    min_overlap: Annotated[float, Field(gt=0, le=1)] = 1.0
    order: StrictBool = False
    min_tau: Annotated[float, Field(ge=-1, le=1)] = 1.0

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.order and self.k > _ORDERED_MAX:
            raise ValueError(f"order compares every two of the k: k is {_ORDERED_MAX} at most")
        if "min_tau" in self.model_fields_set and not self.order:
            raise ValueError("min_tau is of the order: it goes with order: true")
        return self


class CosineRule(Strict):
    """Vectors of the same direction: a cosine similarity of at least `min`."""

    rule: Literal["cosine"]
    min: Annotated[float, Field(ge=-1, le=1)] = 0.999


class DistributionRule(Strict):
    """Similar distributions: a Jensen-Shannon divergence, in bits, of at most `max`."""

    rule: Literal["distribution"]
    source: Literal["logits", "probabilities"] = Field(alias="from")
    max: _Share = 0.01


class BytesRule(Strict):
    """Strings equal to the byte."""

    rule: Literal["bytes"]


class JsonRule(Strict):
    """Strings of equal JSON: numbers within tolerance, without the ignored paths."""

    rule: Literal["json"]
    rtol: _Distance = 0.0
    atol: _Distance = 0.0
    ignore: Annotated[tuple[JsonPath, ...], Field(max_length=64)] = ()


class IgnoreRule(Strict):
    """Not compared: ignored is not matched."""

    rule: Literal["ignore"]


# In the order in which messages and docs name them.
BuiltInRule = (
    CloseRule
    | ExactRule
    | RelativeRule
    | ArgmaxRule
    | TopKRule
    | CosineRule
    | DistributionRule
    | BytesRule
    | JsonRule
    | IgnoreRule
)
_built_in: TypeAdapter[BuiltInRule] = TypeAdapter(
    Annotated[BuiltInRule, Field(discriminator="rule")]
)
_BUILT_IN_NAMES: Final = tuple(
    get_args(each.model_fields["rule"].annotation)[0] for each in get_args(BuiltInRule)
)


def _rule(value: Any) -> BuiltInRule | OwnRule:
    """Return the rule of that name: a built-in one, else a package's. Raises ValueError."""
    if isinstance(value, OwnRule):
        return value
    name = value.get("rule") if isinstance(value, dict) else None
    if isinstance(name, str) and name not in _BUILT_IN_NAMES:
        return _find_own_rule(name).model_validate(value)
    return _built_in.validate_python(value)


def _settings_of(rule: BuiltInRule | OwnRule) -> dict[str, Any]:
    return rule.model_dump(mode="json", by_alias=True)


RuleConfig = Annotated[BuiltInRule | OwnRule, PlainValidator(_rule), PlainSerializer(_settings_of)]


class CompareConfig(Strict):
    """How answers are compared, output by output.

    `batched`: whether the first dimension of outputs counts rows. `auto` decides by the shapes.
    """

    batched: Literal["auto", True, False] = "auto"
    default: RuleConfig = CloseRule()
    outputs: Annotated[
        dict[Annotated[str, Field(max_length=1_024)], RuleConfig], Field(max_length=_OUTPUTS_MAX)
    ] = Field(default={})


def rules_digest(rules: CompareConfig) -> str:
    """Return a digest of the rules, 32 hex digits. The order of outputs doesn't matter.

    Defaults count as if they were written. The code of a rule of one's own isn't covered.
    """
    whole = {
        "batched": rules.batched,
        "default": _digest_fields(rules.default),
        "outputs": {name: _digest_fields(rule) for name, rule in rules.outputs.items()},
    }
    text = json.dumps(whole, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def unknown_outputs(rules: CompareConfig, names: Iterable[str]) -> list[str]:
    """Return the outputs that rules name and a model, which has `names`, doesn't have."""
    known = frozenset(names)
    return [name for name in rules.outputs if name not in known]


def _digest_fields(rule: BuiltInRule | OwnRule) -> dict[str, Any]:
    fields = _settings_of(rule)
    if isinstance(rule, OwnRule):
        fields["class"] = f"{type(rule).__module__}.{type(rule).__qualname__}"
    return fields


# ---------------------------------------------------------------- rules of installed packages


def _find_own_rule(name: str) -> type[OwnRule]:
    installed = {each.name: each for each in entry_points(group=RULES_GROUP)}
    if name not in installed:
        names = ", ".join([*_BUILT_IN_NAMES, *sorted(set(installed) - set(_BUILT_IN_NAMES))])
        raise ValueError(f"no rule '{name}', expected one of {names}")
    return _load_rule(installed[name])


def _load_rule(entry: EntryPoint) -> type[OwnRule]:
    try:
        found = entry.load()
    except Exception as error:
        # The package may raise anything: the file can't be used, and the error says why.
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"rule '{entry.name}' ({entry.value}) can't be loaded: {why}") from error
    if not (isinstance(found, type) and issubclass(found, OwnRule)) or inspect.isabstract(found):
        raise ValueError(f"rule '{entry.name}' ({entry.value}) is no OwnRule with a measure")
    return found
