"""A trial: what was found of a pair under the same models and rules. Values only."""

from dataclasses import dataclass, field, replace
from typing import Final

from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.moment import Moment
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.verdict import NO_VERDICT, Verdict

VERSION_CHARS_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class TrialKey:
    """What must stay the same for evidence to add up; a version that is "" is not known.

    `rules` is a digest of what comparisons and verdicts go by, `definition` one of both variants.
    """

    rules: str
    definition: str
    reference_version: str = ""
    candidate_version: str = ""

    def has_settings_of(self, other: "TrialKey") -> bool:
        """Whether rules and variants are the same, whatever the versions."""
        return (self.rules, self.definition) == (other.rules, other.definition)

    def fits(self, other: "TrialKey") -> bool:
        """Whether the two may be the same: what is known of both is."""
        return (
            self.has_settings_of(other)
            and _may_be(self.reference_version, other.reference_version)
            and _may_be(self.candidate_version, other.candidate_version)
        )

    def with_versions_of(self, other: "TrialKey") -> "TrialKey":
        """Return this key, with versions that it doesn't know from the other."""
        return replace(
            self,
            reference_version=self.reference_version or other.reference_version,
            candidate_version=self.candidate_version or other.candidate_version,
        )

    def with_bounded_versions(self) -> "TrialKey":
        """Return this key with versions that fit: models choose what they say."""
        if max(len(self.reference_version), len(self.candidate_version)) <= VERSION_CHARS_MAX:
            return self
        return replace(
            self,
            reference_version=self.reference_version[:VERSION_CHARS_MAX],
            candidate_version=self.candidate_version[:VERSION_CHARS_MAX],
        )

    def first_difference(self, other: "TrialKey") -> str:
        """Return the first thing in which it differs from another, as operators read it."""
        if self.rules != other.rules:
            return "rules"
        if self.definition != other.definition:
            return "variant"
        if not _may_be(self.reference_version, other.reference_version):
            return "reference version"
        return "candidate version"


def _may_be(one: str, other: str) -> bool:
    return one == other or not one or not other


@dataclass(slots=True)
class Trial:
    """One trial of a pair. `turn` is the greatest of its pair where it is the current one.

    `kept` is the verdict that the disk was last given, whether it took it or not. A `number` of 0
    is of a trial that nobody keeps: there were too many pairs.
    """

    pair: Pair
    key: TrialKey
    number: int
    began_ns: int
    why: str
    ended_ns: int = 0
    turn: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    verdict: Verdict = NO_VERDICT
    kept: Verdict = NO_VERDICT
    # What goes on now, and is no evidence yet.
    differing: Moment = field(default_factory=Moment)
    failing: Moment = field(default_factory=Moment)

    @property
    def shown_verdict(self) -> Verdict:
        """The verdict that may be told: one with another word waits until it is kept."""
        return self.verdict if self.verdict.verdict == self.kept.verdict else self.kept
