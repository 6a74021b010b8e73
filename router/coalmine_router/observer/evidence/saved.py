"""Evidence that is kept: as text and back, and added up. Pure.

The text is JSON with a version of its own, so what another program wrote is refused, not misread.
"""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from coalmine_router.observer.evidence.betting.spells import SpellEvidence
from coalmine_router.observer.evidence.betting.windows import WindowedMean
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.trial import Trial, TrialKey
from coalmine_router.observer.evidence.verdict import Verdict

FORMAT: Final = 1


class Unreadable(Exception):
    """A text that isn't a kept trial; says why, in one line."""


class _Saved(BaseModel):
    """What is kept of a trial beside that by which it is found."""

    model_config = ConfigDict(
        ser_json_bytes="hex", val_json_bytes="hex", ser_json_inf_nan="constants"
    )

    format: Literal[1] = FORMAT
    turn: int
    why: str
    key: TrialKey
    verdict: Verdict
    evidence: Evidence

    @field_validator("evidence", mode="before")
    @classmethod
    def _convert_weights(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name, each in value.items():
                if isinstance(each, dict) and isinstance(each.get("by_weights"), dict):
                    each["by_weights"] = _with_weight_keys(each["by_weights"])
                    if name != "assigned":
                        value[name] = _event_sums(each["by_weights"])
        return value


def _with_weight_keys(texts: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    # JSON has texts for keys: of a pair of weights, "100,9900".
    return {tuple(key.split(",")): count for key, count in texts.items()}


def _event_sums(by_weights: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return events that an older program has saved by weights: what they showed is left out."""
    sums = {"total": 0, "of_candidate": 0, "expected": 0.0}
    for weights, (number, own) in by_weights.items():
        sums["total"] += number
        sums["of_candidate"] += own
        sums["expected"] += number * int(weights[0]) / max(1, sum(map(int, weights)))
    return sums


def to_text(trial: Trial) -> str:
    """Return the trial but for its pair, number and times."""
    saved = _Saved(
        turn=trial.turn,
        why=trial.why,
        key=trial.key,
        verdict=trial.verdict,
        evidence=trial.evidence,
    )
    return saved.model_dump_json()


def from_text(text: str, pair: Pair, number: int, *, began_ns: int, ended_ns: int) -> Trial:
    """Return the trial that `to_text` was given. Raises Unreadable for any other text."""
    try:
        saved = _Saved.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise Unreadable(f"{place}: {first['msg']}") from None
    return Trial(
        pair=pair,
        key=saved.key,
        number=number,
        began_ns=began_ns,
        why=saved.why,
        ended_ns=ended_ns,
        turn=saved.turn,
        evidence=saved.evidence,
        verdict=saved.verdict,
        kept=saved.verdict,
    )


# ---------------------------------------------------------------- added up


def merged_evidence(one: Evidence, other: Evidence) -> Evidence:
    """Return what two routers saw together.

    Sums, but for the largest of `max_…` and one text of two; of segments and outputs the union,
    which may be larger than either's bound.
    """
    found: Evidence = _merged_values(one, other)
    return found


def _merged_values(one: Any, other: Any) -> Any:
    if isinstance(one, SpellEvidence | WindowedMean):
        both = deepcopy(one)
        both.add_all(other)
        return both
    if is_dataclass(one):
        made: Callable[..., Any] = type(one)
        return made(
            **{
                each.name: _merger(each.name)(getattr(one, each.name), getattr(other, each.name))
                for each in fields(one)
            }
        )
    if isinstance(one, dict):
        return _merged_dict(one, other)
    if isinstance(one, list):
        return [_merged_values(*both) for both in zip(one, other, strict=True)]
    if isinstance(one, str):
        return one or other
    return one + other


def _merged_dict(one: dict[Any, Any], other: dict[Any, Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = Counter() if isinstance(one, Counter) else {}
    for key in {**one, **other}:
        # What one of them lacks is a sum of nothing.
        found: Any = one.get(key, other.get(key))
        nothing = [0] * len(found) if isinstance(found, list) else type(found)()
        made[key] = _merged_values(one.get(key, nothing), other.get(key, nothing))
    return made


def _merger(name: str) -> Callable[[Any, Any], Any]:
    return max if name.startswith("max_") else _merged_values
