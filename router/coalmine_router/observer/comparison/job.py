"""All comparisons of one request, as one job that can be sent to another process. Pure.

Each answer is read once, however many pairs it is in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.answer_arrays import AnswerArrays, arrays_of
from coalmine_router.observer.comparison.messages import message_comparison
from coalmine_router.observer.comparison.pair_comparison import pair_comparison
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison, RuleWarning
from coalmine_router.observer.comparison.statuses import status_comparison


@dataclass(frozen=True, slots=True)
class ComparisonJob:
    """Answers, and the pairs to compare: a reference's place and its candidate's."""

    answers: tuple[ComparedAnswer, ...]
    pairs: tuple[tuple[int, int], ...]
    rules: CompareConfig
    is_inference: bool = True

    @property
    def size_bytes(self) -> int:
        """The bodies' size in memory."""
        return sum(len(answer.body) for answer in self.answers)


@dataclass(frozen=True, slots=True)
class JobResults:
    """A comparison for each pair, in their order; a model's version for each answer, or "".

    A job gives each warning once; the next job may give it again.
    """

    comparisons: tuple[Comparison, ...]
    versions: tuple[str, ...]
    warnings: tuple[RuleWarning, ...] = ()


def results_of(job: ComparisonJob) -> JobResults:
    """Return the comparisons of a job. Never raises, whatever the answers are."""
    if not job.is_inference:
        comparisons = tuple(_message_comparison(job, *pair) for pair in job.pairs)
        return JobResults(comparisons, ("",) * len(job.answers))
    answers = _all_arrays(job.answers)
    found = [_pair_comparison(job, answers, *pair) for pair in job.pairs]
    warnings = dict.fromkeys(chain.from_iterable(warnings for _, warnings in found))
    comparisons = tuple(comparison for comparison, _ in found)
    return JobResults(comparisons, tuple(each.version for each in answers), tuple(warnings))


def _message_comparison(job: ComparisonJob, reference: int, candidate: int) -> Comparison:
    ours, theirs = job.answers[reference], job.answers[candidate]
    return status_comparison(ours, theirs) or message_comparison(ours.body, theirs.body, job.rules)


def _all_arrays(answers: Sequence[ComparedAnswer]) -> list[AnswerArrays]:
    """Return each answer's outputs; the same bytes are read once."""
    found: list[AnswerArrays] = []
    for at, answer in enumerate(answers):
        alike = next((n for n in range(at) if answers[n] == answer), None)
        found.append(arrays_of(answer) if alike is None else found[alike])
    return found


def _pair_comparison(
    job: ComparisonJob, answers: Sequence[AnswerArrays], reference: int, candidate: int
) -> tuple[Comparison, list[RuleWarning]]:
    decided = status_comparison(job.answers[reference], job.answers[candidate])
    if decided is not None:
        return decided, []
    comparison, warnings = pair_comparison(answers[reference], answers[candidate], job.rules)
    return comparison, [*warnings, *_unknown_outputs(answers[reference], job.rules)]


def _unknown_outputs(reference: AnswerArrays, rules: CompareConfig) -> list[RuleWarning]:
    if reference.problem or rules.outputs.keys() <= reference.tensors.keys():
        return []
    names = [name for name in rules.outputs if name not in reference.tensors]
    return [RuleWarning("unknown_output", name) for name in names]
