"""What a rule of one's own is made of: a class that a package registers by entry point. Pure.

Group `coalmine.rules`, name = the name that router.yaml calls it by, value = the class.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, NamedTuple

from numpy.typing import NDArray

from coalmine.process.config_file import Strict
from coalmine.tensors import DATATYPES

ALL_DATATYPES: Final = frozenset(DATATYPES)


class RowResult(NamedTuple):
    """What was found of one row. The texts are shown to people; the score is the rule's own.

    `badness` orders rows that mismatch, and kept examples: more is worse, NaN the worst. Without
    it, the first row is shown, and examples are ordered by how many rows differ.
    """

    is_mismatch: bool
    score: float | None = None
    expected: str = ""
    actual: str = ""
    badness: float | None = None


class OwnRule(Strict, ABC):
    """Derive from this; the fields are the settings that router.yaml may give.

    It is pickled on its way to other processes, so it and its settings must be importable there.
    `datatypes` are those it can compare: outputs of others are skipped.
    """

    datatypes: ClassVar[frozenset[str]] = ALL_DATATYPES

    rule: str

    @abstractmethod
    def measure(self, reference: NDArray[Any], candidate: NDArray[Any]) -> RowResult:
        """Return what `candidate` is beside `reference`.

        Shapes: equal, one row without the batch dimension; of BYTES, object arrays of `bytes`. Both
        are read-only. What it raises is counted as a rule that failed, and the output is skipped.
        """
