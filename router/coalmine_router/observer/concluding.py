"""What becomes of an exchange once its copies came back: compared, learnt from, kept, told."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_INFER
from coalmine_router.observer.comparison.job import Job, Results
from coalmine_router.observer.comparison.result import Answer
from coalmine_router.observer.examples.records import mismatch_record
from coalmine_router.observer.examples.redaction import redacted
from coalmine_router.observer.exchange import Exchange, Found
from coalmine_router.observer.learning import Learning
from coalmine_router.observer.pairs import Planned, answers_of, pairs_of
from coalmine_router.observer.settings import UNSET, RouteSettings
from coalmine_router.observer.warned import WarningCounts


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

    async def conclude(self, exchange: Exchange) -> None:
        """Compare the answers; note in the exchange what was found, and the verdicts this changed.

        Nothing is found where they were left out, because what compares could not keep up.
        """
        answers, planned = answers_of(exchange), pairs_of(exchange)
        settings = self._settings(exchange)
        job = Job(
            answers=answers,
            pairs=tuple(each.places for each in planned),
            rules=settings.compare,
            is_inference=exchange.report.method == MODEL_INFER,
        )
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        results = await self._compares.compared(job)
        if results is None:
            return
        took_ns = self._clock.monotonic_ns() - began_ns
        compared = _Compared(exchange, answers, planned, results, started_ns, took_ns)
        self._warned.note(exchange.report.route, results.warnings, settings.capture)
        exchange.found = list(self._told(compared))

    def _settings(self, exchange: Exchange) -> RouteSettings:
        return self._routes.get(exchange.report.route, UNSET)

    def _told(self, compared: _Compared) -> Iterator[Found]:
        """Learn from what was found; return what may be told of it."""
        capture = self._settings(compared.exchange).capture
        for found, planned in zip(self._found(compared), compared.planned, strict=True):
            learnt = self._learnt(compared, found, planned)
            yield replace(learnt, comparison=redacted(learnt.comparison, capture))

    def _learnt(self, compared: _Compared, found: Found, planned: Planned) -> Found:
        exchange, route = compared.exchange, compared.exchange.route
        # Who answered may be of a table that is no longer in force.
        if route is None or not {found.reference, found.candidate} <= route.by_name.keys():
            return found
        if found.role == "noise":
            return found
        reference, candidate = (compared.answers[place] for place in planned.places)
        learnt, change = self._learning.compared(exchange, route, found, candidate)
        if change is not None:
            exchange.changes.append(change)
        self._keep(exchange, learnt, reference, candidate)
        return learnt

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
