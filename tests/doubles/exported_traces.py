"""One trace for each thing that can happen to a request, exported by the real exporters."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from coalmine.control.v1 import control_pb2 as pb
from coalmine.spans.span_exporter import open_exporters
from coalmine.trace_context import HeadSampler, traceparent
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison
from coalmine_router.observer.evidence.verdict import Figures, Gate, Verdict, VerdictChange
from coalmine_router.observer.observed_request import ObservedRequest, PairResult
from coalmine_router.observer.output.request_spans import request_spans
from coalmine_router.observer.output.verdict_spans import verdict_span, verdicts_by_span
from coalmine_server.spans import RequestRecord as Served
from coalmine_server.spans import SpanRecorder as ServerSpans
from tests.doubles.observed_requests import (
    MATCH,
    copy_call,
    difference,
    failed,
    mismatch,
    observed_request,
    pair_result,
)
from tests.doubles.reports import STARTED_NS, report
from tests.doubles.span_list import SpanList

ROUTER = Resource({"service.name": "coalmine-router"})
SERVER = Resource({"service.name": "coalmine-server"})

MS = 10**6
GONE = ComparedAnswer(code="UNAVAILABLE", message="gone fishing")
FAILED = Verdict("fail", "5 % of rows differ, 1 % may", (Gate("mismatch", "fail", "5 %"),))


def refused(reason: str, code: int, **fields: Any) -> ObservedRequest:
    made = report(variant="", status_code=code, turned_away=reason, origin_router=True, **fields)
    del made.attempts[:]
    return ObservedRequest.of(made)


def fell_back() -> ObservedRequest:
    made = report(assignment=pb.ASSIGNMENT_FALLBACK, chosen="canary")
    made.attempts[0].variant, made.attempts[0].status_code = "canary", 14
    made.attempts.add().CopyFrom(made.attempts[0])
    second = made.attempts[1]
    second.span_id, second.variant, second.status_code = b"attempt2", "stable", 0
    return ObservedRequest.of(made)


def instead() -> ObservedRequest:
    """Canary was not ready, so that no call went to it."""
    return ObservedRequest.of(report(assignment=pb.ASSIGNMENT_FALLBACK, chosen="canary"))


def tried_twice() -> ObservedRequest:
    made = report()
    made.attempts[0].status_code = 14
    made.attempts.add().CopyFrom(made.attempts[0])
    made.attempts[1].span_id, made.attempts[1].status_code = b"attempt2", 0
    return ObservedRequest.of(made)


def requests() -> dict[str, ObservedRequest]:
    """Return requests by what is told of them."""
    return {
        "match": observed_request(pair_result(MATCH)),
        "scores by 0.2": observed_request(pair_result(mismatch(difference("scores")))),
        "logits by 5e-3": observed_request(pair_result(mismatch(difference(max_abs_diff=5e-3)))),
        "logits by 2e-4": observed_request(pair_result(mismatch(difference(max_abs_diff=2e-4)))),
        "nan": observed_request(pair_result(mismatch(difference(kind="nan")), noise=mismatch())),
        "two outputs": observed_request(
            pair_result(mismatch(difference("scores"), difference("logits", "nan")))
        ),
        "beyond noise": observed_request(pair_result(mismatch(), noise=MATCH)),
        "of int8": observed_request(
            pair_result(mismatch(difference("scores")), "int8"), pair_result(MATCH)
        ),
        "noise alone": observed_request(
            pair_result(mismatch(), "stable", "noise"), pair_result(MATCH)
        ),
        "audit": observed_request(pair_result(mismatch(), "canary", "audit")),
        "missing": observed_request(pair_result(Comparison("mismatch", "missing"))),
        "slow": observed_request(duration_ns=200 * MS),
        "slow mismatch": observed_request(pair_result(mismatch()), duration_ns=250 * MS),
        "slow shadow": observed_request(
            pair_result(MATCH), calls=[copy_call(duration_ns=400 * MS)]
        ),
        "shadow failed": observed_request(pair_result(failed()), calls=[copy_call(answer=GONE)]),
        "audit failed": observed_request(
            pair_result(failed(), role="audit"), calls=[copy_call("canary", "audit", GONE)]
        ),
        "fell back": fell_back(),
        "instead": instead(),
        "tried twice": tried_twice(),
        "in flight": refused("in_flight", 8),
        "not ready": refused("not_ready", 14),
        "no route": refused("", 5, route=""),
        "out of reach": observed_request(status_code=14, origin_router=True),
        "failed": observed_request(status_code=13),
        "tipped": observed_request(pair_result(mismatch())),
        "of acme": observed_request(pair_result(MATCH)),
        "acme's mismatch": observed_request(pair_result(mismatch())),
        "version 3": observed_request(pair_result(MATCH, candidate_version="3")),
        "order": observed_request(pair_result(MATCH), request_id="order-4711"),
        "uncopied order": observed_request(),
    }


SEGMENTS: Mapping[str, str] = {"of acme": "acme", "acme's mismatch": "acme", "match": "(none)"}
# Of these the server made spans too: the request's id, and the version that answered.
SERVED: Mapping[str, tuple[str, str]] = {
    "match": ("r-1", "1"),
    "version 3": ("r-1", "3"),
    "order": ("order-4711", "1"),
    "uncopied order": ("order-4711", "1"),
}


def change(tipped_by: PairResult, trace_id: bytes) -> VerdictChange:
    return VerdictChange(
        *("digits", "stable", "canary"),
        before=Verdict(),
        verdict=FAILED,
        at_ns=STARTED_NS,
        trial=1,
        reference_version="1",
        candidate_version="2",
        figures=Figures(114, 6, 1, 0, 0.05, 0.02, 0.1, 0.01),
        trace_id=trace_id,
        span_id=tipped_by.span_id,
    )


def export(folder: Path) -> dict[str, str]:
    """Write all traces to `folder`/router and `folder`/server; return what is told, by trace id."""
    made = requests()
    names = {each.report.trace_id.hex(): name for name, each in made.items()}
    failure = change(made["tipped"].results[0], made["tipped"].report.trace_id)
    verdicts = {
        "failure": failure,
        "failure of int8": replace(failure, candidate="int8"),
        "pass": replace(failure, verdict=Verdict("pass")),
    }
    spans: list[ReadableSpan] = []
    for name, each in made.items():
        by = verdicts_by_span([failure]) if name == "tipped" else {}
        spans += request_spans(each, ROUTER, segment=SEGMENTS.get(name), verdicts=by)
    for seed, (name, verdict) in enumerate(verdicts.items()):
        spans.append(verdict_span(verdict, ROUTER, random.Random(seed), STARTED_NS + 1_000_000))
        names[trace_id(spans[-1])] = name
    write(folder / "router", spans)
    write(folder / "server", list(served(made)))
    return names


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def served(made: Mapping[str, ObservedRequest]) -> Iterable[ReadableSpan]:
    kept = SpanList()
    spans = ServerSpans(
        SERVER, kept, sampler=HeadSampler(1.0, parent_based=True), rng=random.Random(1)
    )
    for name, (request_id, version) in SERVED.items():
        asked = made[name].report
        parent = traceparent(asked.trace_id, asked.attempts[0].span_id, sampled=True)
        spans.record(_served(spans, parent, request_id, version))
    return kept.spans


def _served(spans: ServerSpans, parent: str, request_id: str, version: str) -> Served:
    traced = spans.begin([("traceparent", parent)])
    assert traced is not None
    times: dict[str, Any] = {
        "begun_ns": STARTED_NS + 200_000,
        "queued_ns": STARTED_NS + 250_000,
        "started_ns": STARTED_NS + 500_000,
        "computed_ns": STARTED_NS + 2_000_000,
        "ended_ns": STARTED_NS + 2_100_000,
    }
    others = [each for each in (spans.begin([]) for _ in range(200)) if each is not None]
    return Served(
        traced,
        model="digits",
        version=version,
        request_id=request_id,
        batch_rows=201,
        batch=[traced, *others],
        **times,
    )


def write(folder: Path, spans: Sequence[ReadableSpan]) -> None:
    (exporter,) = open_exporters(folder, {})
    exporter.export(spans)
    exporter.shutdown()
