"""A changed verdict as a span: a trace of its own, linked to the span that tipped it."""

import random
from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from coalmine import telemetry as t
from coalmine.spans.span_names import verdict_name
from coalmine.spans.span_text import span_text
from coalmine_router.observer.evidence.verdict import (
    Figures,
    Finding,
    Gate,
    Verdict,
    VerdictChange,
    Word,
)
from coalmine_router.observer.output.request_spans import SAMPLED, SCOPE
from coalmine_router.observer.output.span_values import (
    Value,
    Values,
    attribute_name,
    capped_values,
    non_empty,
)

# The finding of the gate that decides a verdict. A pass needs all gates, so no one gate decides it.
_DECIDES: Final[Mapping[Word, Finding]] = {"fail": "fail", "inconclusive": "alarm"}
_GRAVEST_FIRST: Final[tuple[Word, ...]] = ("fail", "inconclusive", "pass")


def verdicts_by_span(changes: Iterable[VerdictChange]) -> dict[bytes, str]:
    """Return the verdicts by the spans that tipped them; of several at one span, the gravest."""
    gravest: dict[bytes, Word] = {}
    for change in changes:
        words = {change.verdict.verdict, gravest.get(change.span_id, "pass")}
        gravest[change.span_id] = min(words, key=_GRAVEST_FIRST.index)
    return {span_id: word for span_id, word in gravest.items() if span_id}


def verdict_span(
    change: VerdictChange, resource: Resource, rng: random.Random, end_ns: int
) -> ReadableSpan:
    """Return the span of a change; a FAIL has the status of an error.

    It lasts from the comparison that tipped the verdict until `end_ns`, when it is on disk.
    """
    # A proxy elsewhere may have a clock that is ahead.
    began_ns = min(change.began_ns or change.at_ns, change.at_ns)
    context = SpanContext(rng.getrandbits(128) or 1, rng.getrandbits(64) or 1, False, SAMPLED)  # noqa: FBT003 - the SDK's
    return ReadableSpan(
        verdict_name(change.candidate, change.verdict.verdict),
        context=context,
        resource=resource,
        attributes=capped_values(
            {**_subject_values(change), **_finding_values(change), **_figure_values(change.figures)}
        ),
        events=[_gate_event(gate, change.at_ns) for gate in change.verdict.gates],
        links=_links(change),
        kind=SpanKind.INTERNAL,
        status=_status(change.verdict),
        start_time=began_ns,
        end_time=max(end_ns, began_ns + 1),
        instrumentation_scope=SCOPE,
    )


def _subject_values(change: VerdictChange) -> Values:
    return non_empty(
        {
            t.ROUTE: change.route,
            t.COMPARE_REFERENCE: change.reference,
            t.COMPARE_CANDIDATE: change.candidate,
            t.COMPARE_REFERENCE_VERSION: change.reference_version,
            t.COMPARE_CANDIDATE_VERSION: change.candidate_version,
            t.TRIAL: change.trial or None,
        }
    )


def _finding_values(change: VerdictChange) -> Values:
    verdict = change.verdict
    decides = _DECIDES.get(verdict.verdict)
    gates: dict[str, Value | None] = {
        attribute_name(t.GATE_PREFIX, each.gate): each.finding for each in verdict.gates
    }
    return non_empty(
        {
            t.VERDICT: verdict.verdict,
            t.VERDICT_BEFORE: change.before.verdict,
            t.VERDICT_REASON: verdict.reason,
            t.VERDICT_GATE: next(
                (each.gate for each in verdict.gates if each.finding == decides), ""
            ),
            t.VERDICT_TRACE_ID: change.trace_id.hex(),
            **gates,
        }
    )


def _figure_values(figures: Figures) -> Values:
    return non_empty(
        {
            t.VERDICT_MATCH: figures.match,
            t.VERDICT_MISMATCH: figures.mismatch,
            t.VERDICT_ERROR: figures.error,
            t.VERDICT_SKIPPED: figures.skipped,
            t.VERDICT_RATE: figures.rate,
            t.VERDICT_RATE_LOW: figures.rate_low,
            t.VERDICT_RATE_HIGH: figures.rate_high,
            t.VERDICT_ALLOWED_RATE: figures.allowed_rate,
        }
    )


def _gate_event(gate: Gate, at_ns: int) -> Event:
    fields: dict[str, Value | None] = {
        "gate": gate.gate,
        "finding": gate.finding,
        "reason": gate.reason,
        "log_fail": gate.log_fail,
        "log_pass": gate.log_pass,
        "log_needed": gate.log_needed,
        "observed": gate.observed,
    }
    return Event(t.GATE_EVENT, capped_values(non_empty(fields)), at_ns)


def _links(change: VerdictChange) -> tuple[Link, ...]:
    trace_id = int.from_bytes(change.trace_id, "big")
    span_id = int.from_bytes(change.span_id, "big")
    if not (trace_id and span_id):
        return ()
    return (Link(SpanContext(trace_id, span_id, False, SAMPLED)),)  # noqa: FBT003 - the SDK's


def _status(verdict: Verdict) -> Status:
    if verdict.verdict == "fail":
        return Status(StatusCode.ERROR, span_text(verdict.reason))
    return Status(StatusCode.UNSET)
