"""What becomes of an exchange once its copies came back: compared, learnt from, kept, told."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import structlog

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_INFER
from coalmine_router.observer.comparison.job import Job, Results
from coalmine_router.observer.comparison.result import Answer
from coalmine_router.observer.evidence.verdict import VerdictChange
from coalmine_router.observer.examples.records import mismatch_record
from coalmine_router.observer.examples.redaction import redacted
from coalmine_router.observer.exchange import Exchange, Found
from coalmine_router.observer.learning import Learning
from coalmine_router.observer.pairs import Planned, answers_of, pairs_of
from coalmine_router.observer.settings import UNSET, RouteSettings
from coalmine_router.observer.warned import WarningCounts

_log = structlog.get_logger(__name__)


class Compares(Protocol):
    """Compares the answers of an exchange; Comparing does, here or in other processes."""

    async def compared(self, job: Job) -> Results | None:
        """Return what was found; None where it could not keep up."""
        ...


class KeepsExamples(Protocol):
    """Keeps mismatches; Mismatches does."""

    def offer(self, record: pb.Mismatch) -> None:
        """Take a record; returns soon."""
        ...


class _Compared(NamedTuple):
    """One exchange's answers, and what was found of each pair of them."""

    exchange: Exchange
    answers: Sequence[Answer]
    planned: Sequence[Planned]
    results: Results
    started_ns: int
    took_ns: int


class Concluding:
    """Compares the answers of an exchange, and learns from what is found."""

    def __init__(
        self,
        *,
        compares: Compares,
        learning: Learning,
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

    async def conclude(self, exchange: Exchange) -> list[VerdictChange] | None:
        """Compare the answers, note what was found, and return the verdicts that this changed.

        None: they were left out, because what compares could not keep up.
        """
        answers, planned = answers_of(exchange), pairs_of(exchange)
        job = Job(
            answers=answers,
            pairs=tuple(each.places for each in planned),
            rules=self._settings(exchange).compare,
            is_inference=exchange.report.method == MODEL_INFER,
        )
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        results = await self._compares.compared(job)
        if results is None:
            return None
        took_ns = self._clock.monotonic_ns() - began_ns
        found = _Compared(exchange, answers, planned, results, started_ns, took_ns)
        self._warned.note(exchange.report.route, results.warnings)
        return list(self._learnt(found))

    def _settings(self, exchange: Exchange) -> RouteSettings:
        return self._routes.get(exchange.report.route, UNSET)

    def _learnt(self, compared: _Compared) -> Iterator[VerdictChange]:
        exchange = compared.exchange
        for found, planned in zip(self._found(compared), compared.planned, strict=True):
            learnt = found
            if planned.role != "noise" and exchange.route is not None:
                reference, candidate = (compared.answers[place] for place in planned.places)
                learnt, change = self._learning.compared(exchange, exchange.route, found, candidate)
                self._keep(exchange, learnt, reference, candidate)
                if change is not None:
                    yield change
            capture = self._settings(exchange).capture
            told = redacted(learnt.comparison, capture)
            exchange.found.append(replace(learnt, comparison=told))

    def _found(self, compared: _Compared) -> Iterator[Found]:
        comparisons, versions = compared.results.comparisons, compared.results.versions
        # Noise comes first, where there is any.
        noise = comparisons[0] if comparisons else None
        for planned, comparison in zip(compared.planned, comparisons, strict=True):
            reference, candidate = planned.places
            yield Found(
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
            )

    def _keep(self, exchange: Exchange, found: Found, reference: Answer, candidate: Answer) -> None:
        if found.comparison.outcome != "mismatch":
            return
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
