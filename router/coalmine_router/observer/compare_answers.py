"""What becomes of an exchange once its copies came back: compared, kept, noted for learning."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_INFER
from coalmine_router.codes import OK
from coalmine_router.observer.comparison.job import ComparisonJob, JobResults
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.comparison.statuses import is_charged
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence_intake import EvidenceIntake
from coalmine_router.observer.examples.records import mismatch_record
from coalmine_router.observer.examples.redaction import redacted_comparison
from coalmine_router.observer.observed_request import ObservedRequest, PairResult, PendingEvidence
from coalmine_router.observer.pairs import Planned, addresses_of, answers_of, pairs_of
from coalmine_router.observer.route_settings import UNSET, RouteSettings
from coalmine_router.observer.warned import WarningCounts


class Compares(Protocol):
    """Compares the answers of a request; Comparer does, here or in other processes."""

    async def compare(self, job: ComparisonJob) -> JobResults | None:
        """Return what was found; None where it could not keep up."""
        ...


class KeepsExamples(Protocol):
    """Keeps examples of mismatches; ExampleStore does."""

    def offer(self, record: pb.Mismatch) -> None:
        """Take a record; returns soon."""
        ...


class _Compared(NamedTuple):
    """One exchange's answers, and what was found of each pair of them."""

    exchange: ObservedRequest
    answers: Sequence[ComparedAnswer]
    planned: Sequence[Planned]
    results: JobResults
    started_ns: int
    took_ns: int


class AnswerComparison:
    """Compares the answers of an exchange, and notes what is to be learnt from them."""

    def __init__(
        self,
        *,
        compares: Compares,
        learning: EvidenceIntake,
        examples: KeepsExamples,
        warned: WarningCounts,
        routes: Mapping[str, RouteSettings],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._compares = compares
        self._learning = learning
        self._examples = examples
        self._warned = warned
        self._routes = routes
        self._clock = clock
        self._rng = rng

    async def conclude(self, exchange: ObservedRequest) -> None:
        """Compare the answers; note in the exchange what was found, and what it teaches.

        Nothing is found where they were left out, because what compares could not keep up.
        """
        answers, planned = answers_of(exchange), pairs_of(exchange)
        settings = self._settings(exchange)
        job = ComparisonJob(
            answers=answers,
            pairs=tuple(each.places for each in planned),
            rules=settings.compare,
            is_inference=exchange.report.method == MODEL_INFER,
        )
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        results = await self._compares.compare(job)
        if results is None:
            return
        took_ns = self._clock.monotonic_ns() - began_ns
        compared = _Compared(exchange, answers, planned, results, started_ns, took_ns)
        self._warned.note(exchange.report.route, results.warnings, settings.capture)
        exchange.found = list(self._told(compared))

    def _settings(self, exchange: ObservedRequest) -> RouteSettings:
        return self._routes.get(exchange.report.route, UNSET)

    def _told(self, compared: _Compared) -> Iterator[PairResult]:
        """Note what is to be learnt; return what may be told."""
        capture = self._settings(compared.exchange).capture
        for found, planned in zip(self._found(compared), compared.planned, strict=True):
            known = self._noted(compared, found, planned)
            yield replace(known, comparison=redacted_comparison(known.comparison, capture))

    def _noted(self, compared: _Compared, found: PairResult, planned: Planned) -> PairResult:
        exchange, route = compared.exchange, compared.exchange.route
        # Who answered may be of a table that is no longer in force.
        if route is None or not {found.reference, found.candidate} <= route.by_name.keys():
            return found
        if found.role == "noise":
            return found
        trial = self._learning.trial_of(route, found)
        known = replace(found, trial=trial.number)
        exchange.lessons.append(_lesson(compared, known, planned, trial))
        self._keep(compared, known, planned)
        return known

    def _found(self, compared: _Compared) -> Iterator[PairResult]:
        comparisons, versions = compared.results.comparisons, compared.results.versions
        addresses = addresses_of(compared.exchange)
        # Noise comes first, where there is any.
        noise = comparisons[0] if comparisons else None
        for planned, comparison in zip(compared.planned, comparisons, strict=True):
            reference, candidate = planned.places
            yield PairResult(
                role=planned.role,
                reference=planned.reference,
                candidate=planned.candidate,
                comparison=comparison,
                span_id=(self._rng.getrandbits(64) or 1).to_bytes(8, "big"),
                started_ns=compared.started_ns,
                duration_ns=compared.took_ns,
                noise=noise if planned.has_noise else None,
                reference_version=versions[reference],
                candidate_version=versions[candidate],
                reference_address=addresses[reference],
                candidate_address=addresses[candidate],
            )

    def _keep(self, compared: _Compared, found: PairResult, planned: Planned) -> None:
        if found.comparison.outcome != "mismatch":
            return
        exchange = compared.exchange
        reference, candidate = (compared.answers[place] for place in planned.places)
        self._examples.offer(
            mismatch_record(
                f"{self._rng.getrandbits(64):016x}",
                exchange,
                found,
                reference=reference,
                candidate=candidate,
                settings=self._settings(exchange),
                segment=exchange.segment or "",
            )
        )


def _lesson(
    compared: _Compared, found: PairResult, planned: Planned, trial: Trial
) -> PendingEvidence:
    reference, candidate = (compared.answers[place] for place in planned.places)
    # Of what the candidate answered itself, there are copies only where it did not fail.
    is_asked = found.candidate != compared.exchange.report.variant
    if reference.code != OK or not is_asked:
        return PendingEvidence(found, trial)
    noise = compared.planned[0]
    if not planned.has_noise:
        return PendingEvidence(found, trial, _failed(candidate))
    return PendingEvidence(
        found, trial, _failed(candidate), _failed(compared.answers[noise.places[1]])
    )


def _failed(answer: ComparedAnswer) -> bool | None:
    """Return whether an answer is a failure of its model's; None: nobody can say."""
    if answer.code == OK:
        return False
    return True if is_charged(answer) else None
