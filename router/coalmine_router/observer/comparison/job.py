"""All comparisons of one exchange, as one piece of work that can be sent to another process. Pure.

Each answer is read once, however many pairs it is in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.answer_arrays import Read, read
from coalmine_router.observer.comparison.messages import compare_messages
from coalmine_router.observer.comparison.pair_comparison import compare
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison, Warned
from coalmine_router.observer.comparison.statuses import by_status


@dataclass(frozen=True, slots=True)
class Job:
    """Answers, and which to compare with which: places of a reference and its candidate."""

    answers: tuple[ComparedAnswer, ...]
    pairs: tuple[tuple[int, int], ...]
    rules: CompareConfig
    is_inference: bool = True

    @property
    def size_bytes(self) -> int:
        """What the bodies take in memory."""
        return sum(len(answer.body) for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Results:
    """A comparison for each pair, in their order; a model's version for each answer, or "".

    `warnings` come again with each job that gives cause for them, once a job.
    """

    comparisons: tuple[Comparison, ...]
    versions: tuple[str, ...]
    warnings: tuple[Warned, ...] = ()


def run(job: Job) -> Results:
    """Return what comparing found. Whatever the answers are, nothing is raised."""
    if not job.is_inference:
        comparisons = tuple(_messages(job, *pair) for pair in job.pairs)
        return Results(comparisons, ("",) * len(job.answers))
    reads = _reads(job.answers)
    warned: dict[Warned, None] = {}
    comparisons = tuple(_compared(job, reads, pair, warned) for pair in job.pairs)
    return Results(comparisons, tuple(each.version for each in reads), tuple(warned))


def _messages(job: Job, reference: int, candidate: int) -> Comparison:
    ours, theirs = job.answers[reference], job.answers[candidate]
    decided = by_status(ours, theirs)
    return decided or compare_messages(ours.body, theirs.body, job.rules)


def _reads(answers: Sequence[ComparedAnswer]) -> list[Read]:
    """Return what each answer holds; the same bytes are read once."""
    found: list[Read] = []
    for at, answer in enumerate(answers):
        alike = next((n for n in range(at) if answers[n] == answer), None)
        found.append(read(answer) if alike is None else found[alike])
    return found


def _compared(
    job: Job, reads: Sequence[Read], pair: tuple[int, int], warned: dict[Warned, None]
) -> Comparison:
    reference, candidate = pair
    decided = by_status(job.answers[reference], job.answers[candidate])
    if decided is not None:
        return decided
    comparison, found = compare(reads[reference], reads[candidate], job.rules)
    warned.update(dict.fromkeys(found))
    warned.update(dict.fromkeys(_unknown(reads[reference], job.rules)))
    return comparison


def _unknown(reference: Read, rules: CompareConfig) -> list[Warned]:
    if reference.problem or rules.outputs.keys() <= reference.tensors.keys():
        return []
    names = [name for name in rules.outputs if name not in reference.tensors]
    return [Warned("unknown_output", name) for name in names]
