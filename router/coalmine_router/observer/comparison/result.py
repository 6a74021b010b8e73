"""The result of a comparison: of an answer, of an output, of an element."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from coalmine_router.codes import OK

Outcome = Literal["match", "mismatch", "error", "skipped", "ignored"]
Kind = Literal[
    "status", "malformed", "missing", "extra", "datatype", "shape", "nan", "value", "label"
]
# Where outputs differ in several ways, the comparison has the first of these kinds.
KINDS: Final[tuple[Kind, ...]] = (
    "status",
    "malformed",
    "missing",
    "extra",
    "datatype",
    "shape",
    "nan",
    "value",
    "label",
)

DIFFERENCES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """One variant's answer: a serialised message, or a status other than OK."""

    body: bytes = b""
    code: str = OK
    message: str = ""


@dataclass(frozen=True, slots=True)
class Element:
    """One element that differs, as text.

    An index with fewer places than the output has dimensions is that of a vector, or of a row.
    """

    index: tuple[int, ...]
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output differs. For the kinds `status` and `malformed` it names no output.

    `worst` is never empty. Its first element has no index where no values were compared. A rule
    judges `elements`, which are single values or vectors; `differing` of them differ. The rules
    close, exact and relative measure `max_abs_diff`. `score` is the rule's own measure of the worst
    row, and `badness` how bad that is: more is worse, infinity the worst. Both are None where a
    rule has no measure of its own, or no values were compared.
    """

    output: str
    kind: Kind
    worst: tuple[Element, ...]
    max_abs_diff: float = 0.0
    differing: int = 0
    elements: int = 0
    rows: int = 1
    rows_mismatch: int = 1
    rule: str = ""
    score: float | None = None
    badness: float | None = None


@dataclass(frozen=True, slots=True)
class OutputResult:
    """The result of one output. Ignored is not matched, and neither is skipped.

    `rows_mismatch` of `rows` differ. An output is skipped with reason `nothing` where it has no
    elements, and with reason `rule` where its rule couldn't judge it.
    """

    output: str
    outcome: Literal["match", "mismatch", "ignored", "skipped"]
    rows: int = 1
    rows_mismatch: int = 0
    max_abs_diff: float = 0.0
    rule: str = ""
    difference: Difference | None = None
    reason: Literal["", "nothing", "rule"] = ""

    @property
    def share(self) -> float:
        """The share of the rows that differ, 0 to 1."""
        return self.rows_mismatch / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome, with a result for each output where both sides could be read.

    `error`: the candidate failed where the reference did not. `ignored`: the rules ignore every
    output. `skipped`: nothing could be compared, and `kind` says why: a status, a malformed
    reference, a rule that failed, or `nothing`. `rows_mismatch` counts the rows that differ in any
    output. `differences` holds the first 64 of `outputs_differing`.
    """

    outcome: Outcome
    kind: Kind | Literal["nothing", "rule", ""] = ""
    differences: tuple[Difference, ...] = ()
    outputs_differing: int = 0
    outputs: tuple[OutputResult, ...] = ()
    rows: int = 0
    rows_mismatch: int = 0
    max_abs_diff: float = 0.0

    @property
    def is_judged(self) -> bool:
        """Whether the predictions were compared: they matched, or they did not."""
        return self.outcome in {"match", "mismatch"}

    @property
    def is_unanswered(self) -> bool:
        """Whether the reference answered, and the candidate had no answer."""
        return self.outcome == "error"

    @property
    def share(self) -> float:
        """The share of the rows that differ, 0 to 1; a mismatch as a whole is 1."""
        if self.rows:
            return self.rows_mismatch / self.rows
        return 1.0 if self.outcome == "mismatch" else 0.0


class RuleWarning(NamedTuple):
    """A warning about the rules, for the author of the configuration.

    `unknown_output`: a rule names an output that the reference hasn't. `rule_unfit`: a rule doesn't
    fit an output's datatype or shape. `rule_failed`: a rule raised. A model or a rule may have
    written parts of both texts, which are bounded.
    """

    kind: Literal["unknown_output", "rule_unfit", "rule_failed"]
    output: str
    text: str = ""
