"""What becomes of a request once its copies came back: compared, kept, noted for learning."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_INFER
from coalmine_router.codes import OK
from coalmine_router.observer.comparison.job import ComparisonJob, JobResults
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison
from coalmine_router.observer.comparison.statuses import is_charged
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence_intake import EvidenceIntake
from coalmine_router.observer.examples.records import mismatch_record
from coalmine_router.observer.examples.redaction import redacted_comparison
from coalmine_router.observer.observed_request import ObservedRequest, PairResult, PendingEvidence
from coalmine_router.observer.pairs import PlannedPair, addresses_of, answers_of, pairs_of
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
    """One request's answers, and what was found of each pair of them."""

    observed: ObservedRequest
    settings: RouteSettings
    answers: Sequence[ComparedAnswer]
    addresses: Sequence[str]
    planned: Sequence[PlannedPair]
    results: JobResults
    started_ns: int
    took_ns: int


class AnswerComparer:
    """Compares the answers of a request, and notes what is to be learnt from them."""

    def __init__(
        self,
        *,
        compares: Compares,
        evidence: EvidenceIntake,
        examples: KeepsExamples,
        warned: WarningCounts,
        routes: Mapping[str, RouteSettings],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._compares = compares
        self._evidence = evidence
        self._examples = examples
        self._warned = warned
        self._routes = routes
        self._clock = clock
        self._rng = rng

    async def compare(self, observed: ObservedRequest) -> None:
        """Compare the answers; note in the request what was found, and what it teaches.

        Nothing is found where they were left out, because what compares could not keep up.
        """
        answers, planned = answers_of(observed), pairs_of(observed)
        settings = self._routes.get(observed.report.route, UNSET)
        job = ComparisonJob(
            answers=answers,
            pairs=tuple(each.places for each in planned),
            rules=settings.compare,
            is_inference=observed.report.method == MODEL_INFER,
        )
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        results = await self._compares.compare(job)
        if results is None:
            return
        took_ns = self._clock.monotonic_ns() - began_ns
        self._warned.note(observed.report.route, results.warnings, settings.capture)
        addresses = addresses_of(observed)
        compared = _Compared(
            observed, settings, answers, addresses, planned, results, started_ns, took_ns
        )
        observed.results = [
            self._take_in(compared, plan, comparison)
            for plan, comparison in zip(planned, results.comparisons, strict=True)
        ]

    def _take_in(
        self, compared: _Compared, plan: PlannedPair, comparison: Comparison
    ) -> PairResult:
        """Note what is to be learnt of a pair; return what may be told of it."""
        span_id = (self._rng.getrandbits(64) or 1).to_bytes(8, "big")
        trial = self._open_trial(compared, plan)
        result = _result(compared, plan, comparison, span_id, trial.number if trial else 0)
        if trial is not None:
            failed = _failures(compared, plan)
            compared.observed.pending.append(PendingEvidence(result, trial, *failed))
            if comparison.outcome == "mismatch":
                self._keep(compared, result, plan)
        told = redacted_comparison(comparison, compared.settings.capture)
        return result if told is comparison else replace(result, comparison=told)

    def _open_trial(self, compared: _Compared, plan: PlannedPair) -> Trial | None:
        """Return the trial of a pair; None where it is no evidence."""
        route, sides = compared.observed.route, (plan.reference, plan.candidate)
        # Who answered may be of a table that is no longer in force.
        if plan.role == "noise" or route is None or not route.by_name.keys() >= {*sides}:
            return None
        reference, candidate = (compared.results.versions[place] for place in plan.places)
        return self._evidence.open_trial(route, sides, (reference, candidate))

    def _keep(self, compared: _Compared, result: PairResult, plan: PlannedPair) -> None:
        reference, candidate = (compared.answers[place] for place in plan.places)
        self._examples.offer(
            mismatch_record(
                f"{self._rng.getrandbits(64):016x}",
                compared.observed,
                result,
                reference=reference,
                candidate=candidate,
                settings=compared.settings,
                segment=compared.observed.segment or "",
            )
        )


def _result(
    compared: _Compared, plan: PlannedPair, comparison: Comparison, span_id: bytes, trial: int
) -> PairResult:
    versions, addresses = compared.results.versions, compared.addresses
    reference, candidate = plan.places
    return PairResult(
        role=plan.role,
        reference=plan.reference,
        candidate=plan.candidate,
        comparison=comparison,
        span_id=span_id,
        started_ns=compared.started_ns,
        duration_ns=compared.took_ns,
        # Noise comes first, where there is any.
        noise=compared.results.comparisons[0] if plan.has_noise else None,
        reference_version=versions[reference],
        candidate_version=versions[candidate],
        reference_address=addresses[reference],
        candidate_address=addresses[candidate],
        trial=trial,
    )


def _failures(compared: _Compared, plan: PlannedPair) -> tuple[bool | None, bool | None]:
    """Return whether the candidate failed, and the reference when it was asked a second time."""
    reference, candidate = (compared.answers[place] for place in plan.places)
    # Of what the candidate answered itself, there are copies only where it did not fail.
    is_asked = plan.candidate != compared.observed.report.variant
    if reference.code != OK or not is_asked:
        return None, None
    noise = compared.planned[0]
    again = _has_failed(compared.answers[noise.places[1]]) if plan.has_noise else None
    return _has_failed(candidate), again


def _has_failed(answer: ComparedAnswer) -> bool | None:
    """Return whether an answer is a failure of its model's; None: nobody can say."""
    if answer.code == OK:
        return False
    return True if is_charged(answer) else None
