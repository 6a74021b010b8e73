"""What a comparison finds: of an answer, of an output, of an element. Values only."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from coalmine_router.codes import OK

Outcome = Literal["match", "mismatch", "error", "skipped", "ignored"]
Kind = Literal[
    "status", "malformed", "missing", "extra", "datatype", "shape", "nan", "value", "label"
]
# Where outputs differ in several ways, the first of these names the comparison.
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
    """What one variant answered: a serialised message, or a status other than OK."""

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
    """How one output differs; of `status` and `malformed`, no output in particular.

    `worst` is never empty. Its first element has no index where no values were compared. `elements`
    are what the rule judges one by one, single values or vectors; `differing` of them differ.
    `max_abs_diff` is measured by close, exact and relative. `score` is the rule's own measure of
    the worst row, where it has one, and `badness` how bad that is: more is worse, infinity the
    worst. None where a rule has no measure of its own, or no values were compared.
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
    """What was found of one output; ignored is not matched, and neither is skipped.

    `rows_mismatch` of `rows` differ: a share of the request. Skipped are outputs that hold
    `nothing`, and those that their `rule` couldn't judge.
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

    `error`: the candidate failed where the reference did not. `ignored`: every output is, by its
    rule. `skipped`: there was nothing to compare, and `kind` says why: a status, a malformed
    reference, a rule that failed, or `nothing`. `rows_mismatch` are the rows that differ in any
    output. `differences` are the first 64 of `outputs_differing`.
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
        """Whether it says anything of the predictions: it matched, or it did not."""
        return self.outcome in {"match", "mismatch"}

    @property
    def share(self) -> float:
        """The share of the rows that differ, 0 to 1; of a mismatch as a whole, 1."""
        if self.rows:
            return self.rows_mismatch / self.rows
        return 1.0 if self.outcome == "mismatch" else 0.0


class Warned(NamedTuple):
    """What whoever wrote the rules should hear once.

    `unknown_output`: a rule is for an output that the reference hasn't. `rule_unfit`: a rule
    doesn't go with an output's datatype or shape. `rule_failed`: a rule raised. What is told may
    hold what a model or a rule wrote; both texts are bounded.
    """

    what: Literal["unknown_output", "rule_unfit", "rule_failed"]
    output: str
    told: str = ""
