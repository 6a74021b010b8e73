"""A reference's answer against a candidate's: status, names, datatypes, shapes, then values. Pure.

Comparing never fails: whatever the two sides hold, there is an outcome.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from google.protobuf.message import DecodeError

from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import Tensor, decode_outputs
from coalmine_router.config.compare import CloseRule, CompareConfig, IgnoreRule, RuleConfig
from coalmine_router.observer.codes import OK
from coalmine_router.observer.rules import Distance, Element, close, exact, tolerance

Outcome = Literal["match", "mismatch", "error", "skipped"]
Kind = Literal["status", "malformed", "missing", "extra", "datatype", "shape", "nan", "value"]

DIFFERENCES_MAX: Final = 64

# Where outputs differ in several ways, the first of these names the comparison.
_KINDS: Final[tuple[Kind, ...]] = (
    "status",
    "malformed",
    "missing",
    "extra",
    "datatype",
    "shape",
    "nan",
    "value",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one variant answered: a serialised ModelInferResponse, or a status other than OK."""

    body: bytes = b""
    code: str = OK
    message: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output differs; of `status` and `malformed`, no output in particular.

    `worst` is never empty. Its first element has no index unless the kind is `nan` or `value`.
    """

    output: str
    kind: Kind
    worst: tuple[Element, ...]
    max_abs_diff: float = 0.0
    differing: int = 0
    elements: int = 0


@dataclass(frozen=True, slots=True)
class OutputResult:
    """What was found of one output; ignored is not matched."""

    output: str
    outcome: Literal["match", "mismatch", "ignored"]
    max_abs_diff: float = 0.0
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome, with a result for each output where both sides could be read.

    `error`: the candidate failed. `skipped`: there was nothing to compare, and `kind` says why: the
    reference's status, a malformed reference, or `nothing` but ignored outputs. `differences` are
    the first 64 of `outputs_differing`.
    """

    outcome: Outcome
    kind: Kind | Literal["nothing", ""] = ""
    differences: tuple[Difference, ...] = ()
    outputs_differing: int = 0
    outputs: tuple[OutputResult, ...] = ()
    max_abs_diff: float = 0.0


def compare(reference: Answer, candidate: Answer, rules: CompareConfig) -> Comparison:
    """Return how the candidate's answer compares with the reference's."""
    if reference.code != OK:
        return Comparison("skipped", "status")
    if candidate.code != OK:
        told = f"{candidate.code}: {candidate.message}" if candidate.message else candidate.code
        return _whole("error", "status", OK, told)
    try:
        expected = _outputs_by_name(reference.body)
    except ValueError:
        return Comparison("skipped", "malformed")
    try:
        actual = _outputs_by_name(candidate.body)
    except ValueError as error:
        return _whole("mismatch", "malformed", "a ModelInferResponse", str(error))
    return _summed(_results(expected, actual, rules))


def _whole(outcome: Outcome, kind: Kind, expected: str, actual: str) -> Comparison:
    """Return a comparison that never came to single outputs."""
    difference = Difference("", kind, (Element((), expected, actual),))
    return Comparison(outcome, kind, (difference,))


def _outputs_by_name(body: bytes) -> dict[str, Tensor]:
    """Return the outputs of a serialised answer. Raises ValueError, saying what is wrong."""
    try:
        tensors = decode_outputs(oip.ModelInferResponse.FromString(body))
    except DecodeError:
        raise ValueError("not a ModelInferResponse") from None
    except InvalidTensor as error:
        raise ValueError(str(error)) from None
    found = {tensor.name: tensor for tensor in tensors}
    if len(found) != len(tensors):
        raise ValueError("an output's name comes twice")
    return found


def _results(
    expected: Mapping[str, Tensor], actual: Mapping[str, Tensor], rules: CompareConfig
) -> tuple[OutputResult, ...]:
    names = [*expected, *(name for name in actual if name not in expected)]
    return tuple(
        _result(name, expected.get(name), actual.get(name), rules.outputs.get(name, rules.default))
        for name in names
    )


def _summed(results: tuple[OutputResult, ...]) -> Comparison:
    found = [each.difference for each in results if each.difference is not None]
    if not found:
        compared = any(each.outcome == "match" for each in results)
        outcome: Outcome = "match" if compared else "skipped"
        return Comparison(
            outcome, "" if compared else "nothing", outputs=results, max_abs_diff=_largest(results)
        )
    found.sort(key=lambda difference: _KINDS.index(difference.kind))
    return Comparison(
        "mismatch",
        found[0].kind,
        differences=tuple(found[:DIFFERENCES_MAX]),
        outputs_differing=len(found),
        outputs=results,
        max_abs_diff=_largest(results),
    )


def _largest(results: tuple[OutputResult, ...]) -> float:
    return max((each.max_abs_diff for each in results), default=0.0)


# ---------------------------------------------------------------- one output


def _result(
    name: str, expected: Tensor | None, actual: Tensor | None, rule: RuleConfig
) -> OutputResult:
    if isinstance(rule, IgnoreRule):
        return OutputResult(name, "ignored")
    if expected is None or actual is None:
        return _differs(name, *_described(expected, actual))
    if expected.datatype != actual.datatype:
        return _differs(name, "datatype", expected.datatype, actual.datatype)
    if expected.array.shape != actual.array.shape:
        return _differs(name, "shape", _shape(expected), _shape(actual))
    return _judged(name, _distance(rule, expected, actual))


def _described(expected: Tensor | None, actual: Tensor | None) -> tuple[Kind, str, str]:
    if expected is not None:
        return "missing", f"{expected.datatype} {_shape(expected)}", "no such output"
    told = f"{actual.datatype} {_shape(actual)}" if actual is not None else ""
    return "extra", "no such output", told


def _differs(name: str, kind: Kind, expected: str, actual: str) -> OutputResult:
    difference = Difference(name, kind, (Element((), expected, actual),))
    return OutputResult(name, "mismatch", difference=difference)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.array.shape))


def _distance(rule: RuleConfig, expected: Tensor, actual: Tensor) -> Distance:
    if isinstance(rule, CloseRule):
        rtol, atol = tolerance(expected.datatype, rule.rtol, rule.atol)
        return close(expected.array, actual.array, rtol=rtol, atol=atol)
    return exact(expected.array, actual.array)


def _judged(name: str, distance: Distance) -> OutputResult:
    if distance.kind is None:
        return OutputResult(name, "match", distance.max_abs_diff)
    difference = Difference(
        name,
        distance.kind,
        distance.worst,
        distance.max_abs_diff,
        distance.differing,
        distance.elements,
    )
    return OutputResult(name, "mismatch", distance.max_abs_diff, difference)
