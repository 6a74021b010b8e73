"""Writes spans: those of a request whose trace is kept, and that of a changed verdict."""

import random
from collections.abc import Mapping
from typing import Protocol

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from coalmine.clock import Clock
from coalmine_router.observer.evidence.verdict import VerdictChange
from coalmine_router.observer.observed_request import ObservedRequest
from coalmine_router.observer.output.request_spans import request_spans
from coalmine_router.observer.output.verdict_spans import verdict_span, verdicts_by_span
from coalmine_router.observer.route_settings import RouteSettings
from coalmine_router.observer.trace_retention import RefusalTraces, is_kept

_log = structlog.get_logger(__name__)


class SpanSink(Protocol):
    """Exports kept spans; CountedSpans does."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a finished span."""
        ...

    def totals(self) -> Mapping[str, int]:
        """Return how many spans came to each result."""
        ...

    def trouble(self) -> str:
        """Return why they aren't exported, in one line; "" where they are."""
        ...


class NoSpans:
    """For a process whose spans go nowhere."""

    def on_end(self, span: ReadableSpan) -> None:
        """Drop it."""

    def totals(self) -> Mapping[str, int]:
        """Return nothing."""
        return {}

    def trouble(self) -> str:
        """Return ""."""
        return ""


class SpanWriter:
    """Decides which traces are kept, and makes their spans."""

    def __init__(
        self, spans: SpanSink, resource: Resource, rng: random.Random, clock: Clock
    ) -> None:
        self._spans = spans
        self._resource = resource
        self._rng = rng
        self._clock = clock
        self._refusals = RefusalTraces()

    @property
    def refusals_left_out(self) -> int:
        """How many requests without a route left no trace."""
        return self._refusals.left_out

    def write_request(self, observed: ObservedRequest, settings: RouteSettings) -> None:
        """Write the spans of a finished request, if its trace is kept."""
        report = observed.report
        if not report.route and not self._refusals.admit(self._clock.monotonic_ns()):
            return
        if is_kept(
            is_sampled=report.sampled,
            # Of each call: the trace of a request that fell back is kept too.
            is_ok=not any((report.status_code, *(each.status_code for each in report.attempts))),
            duration_ns=report.duration_ns,
            slow_over_ns=settings.slow_over_ns,
            found=observed.results,
            tipped=bool(observed.changes),
        ):
            spans = request_spans(
                observed,
                self._resource,
                segment=observed.segment,
                verdicts=verdicts_by_span(observed.changes),
                has_messages=settings.capture == "full",
            )
            for span in spans:
                self._spans.on_end(span)

    def write_verdict(self, change: VerdictChange) -> None:
        """Log a changed verdict, and write its span."""
        _log.info(
            "verdict",
            route=change.route,
            candidate=change.candidate,
            reference=change.reference,
            verdict=change.verdict.verdict,
            before=change.before.verdict,
            reason=change.verdict.reason,
            trial=change.trial,
            trace_id=change.trace_id.hex(),
        )
        self._spans.on_end(verdict_span(change, self._resource, self._rng, self._clock.wall_ns()))
