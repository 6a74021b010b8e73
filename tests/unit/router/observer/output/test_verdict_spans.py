"""A verdict that became another, as a span."""

import random
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import StatusCode

from coalmine import telemetry as t
from coalmine_router.observer.evidence.verdict import (
    Figures,
    Finding,
    Gate,
    Verdict,
    VerdictChange,
    Word,
)
from coalmine_router.observer.output.verdict_spans import verdict_span, verdicts_by_span

RESOURCE = Resource({"service.name": "coalmine-router"})
GATES = (
    Gate("errors", "open", "too few errors", log_fail=0.5, log_needed=3.0, observed=4),
    Gate("mismatch", "fail", "5 % of rows differ", log_fail=3.1, log_needed=3.0, observed=120),
)
FAILED = VerdictChange(
    route="digits",
    reference="stable",
    candidate="canary",
    before=Verdict(),
    verdict=Verdict("fail", "5 % of rows differ, 1 % may", GATES),
    at_ns=1_700_000_000_000_000_000,
    trial=2,
    reference_version="1",
    candidate_version="2",
    figures=Figures(114, 6, 1, 0, rate=0.05, rate_low=0.02, rate_high=0.1, allowed_rate=0.01),
    trace_id=bytes(range(16)),
    span_id=bytes(range(1, 9)),
)


TOLD_NS = FAILED.at_ns + 5_000


def told(change: VerdictChange) -> dict[str, Any]:
    return dict(verdict_span(change, RESOURCE, random.Random(1), TOLD_NS).attributes or {})


def test_a_change_tells_whose_what_and_by_which_figures() -> None:
    assert told(FAILED) == {
        "coalmine.route": "digits",
        "coalmine.compare.reference": "stable",
        "coalmine.compare.candidate": "canary",
        "coalmine.compare.reference_version": "1",
        "coalmine.compare.candidate_version": "2",
        "coalmine.trial": 2,
        "coalmine.verdict": "fail",
        "coalmine.verdict.before": "inconclusive",
        "coalmine.verdict.reason": "5 % of rows differ, 1 % may",
        "coalmine.verdict.gate": "mismatch",
        "coalmine.verdict.trace_id": FAILED.trace_id.hex(),
        "coalmine.gate.errors": "open",
        "coalmine.gate.mismatch": "fail",
        "coalmine.verdict.match": 114,
        "coalmine.verdict.mismatch": 6,
        "coalmine.verdict.error": 1,
        "coalmine.verdict.skipped": 0,
        "coalmine.verdict.rate": 0.05,
        "coalmine.verdict.rate_low": 0.02,
        "coalmine.verdict.rate_high": 0.1,
        "coalmine.verdict.allowed_rate": 0.01,
    }


def test_it_is_a_trace_of_its_own_that_links_to_the_span_that_tipped_it() -> None:
    first, second = (
        verdict_span(FAILED, RESOURCE, random.Random(seed), TOLD_NS) for seed in (1, 2)
    )
    (link,) = first.links
    assert link.context.trace_id == int.from_bytes(FAILED.trace_id, "big")
    assert link.context.span_id == int.from_bytes(FAILED.span_id, "big")
    assert first.parent is None
    assert first.context is not None
    assert second.context is not None
    ids = {first.context.trace_id, second.context.trace_id, link.context.trace_id}
    assert len(ids) == 3
    assert first.context.trace_flags.sampled


@pytest.mark.parametrize(
    ("began_ns", "told_ns", "spans"),
    [
        (FAILED.at_ns - 700, FAILED.at_ns + 300, (-700, 300)),
        (0, FAILED.at_ns + 300, (0, 300)),
        (FAILED.at_ns + 9_000, FAILED.at_ns + 300, (0, 300)),
        (FAILED.at_ns, FAILED.at_ns - 500, (0, 1)),
    ],
    ids=["usual", "unknown", "by a clock that is ahead", "a clock that was set back"],
)
def test_it_lasts_from_what_tipped_it_to_the_telling_and_never_less_than_a_moment(
    began_ns: int, told_ns: int, spans: tuple[int, int]
) -> None:
    made = verdict_span(replace(FAILED, began_ns=began_ns), RESOURCE, random.Random(1), told_ns)
    assert made.name == "verdict canary: fail"
    assert made.start_time is not None
    assert made.end_time is not None
    assert (made.start_time - FAILED.at_ns, made.end_time - FAILED.at_ns) == spans


def test_a_verdict_that_no_request_tipped_links_to_none() -> None:
    alone = replace(FAILED, trace_id=b"", span_id=b"")
    assert verdict_span(alone, RESOURCE, random.Random(1), TOLD_NS).links == ()
    assert t.VERDICT_TRACE_ID not in told(alone)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("fail", StatusCode.ERROR),
        ("pass", StatusCode.UNSET),
        ("inconclusive", StatusCode.UNSET),
    ],
)
def test_only_a_failure_is_an_error(word: Word, status: StatusCode) -> None:
    change = replace(FAILED, verdict=replace(FAILED.verdict, verdict=word))
    assert verdict_span(change, RESOURCE, random.Random(1), TOLD_NS).status.status_code is status


@pytest.mark.parametrize(
    ("word", "finding", "decided"),
    [("fail", "fail", "split"), ("inconclusive", "alarm", "split"), ("pass", "pass", None)],
)
def test_the_gate_that_decided_is_named_and_none_where_all_had_to_pass(
    word: Word, finding: Finding, decided: str | None
) -> None:
    gates = (Gate("mismatch", "pass"), Gate("split", finding))
    assert told(replace(FAILED, verdict=Verdict(word, "", gates))).get(t.VERDICT_GATE) == decided


def test_every_gate_says_why_and_how_far_it_is() -> None:
    events = verdict_span(FAILED, RESOURCE, random.Random(1), TOLD_NS).events
    assert [dict(each.attributes or {})["gate"] for each in events] == ["errors", "mismatch"]
    assert dict(events[1].attributes or {}) == {
        "gate": "mismatch",
        "finding": "fail",
        "reason": "5 % of rows differ",
        "log_fail": 3.1,
        "log_pass": 0.0,
        "log_needed": 3.0,
        "observed": 120,
    }


def test_without_comparisons_there_is_no_rate() -> None:
    bare = told(replace(FAILED, figures=Figures()))
    assert {t.VERDICT_RATE, t.VERDICT_RATE_LOW, t.VERDICT_ALLOWED_RATE}.isdisjoint(bare)


def test_of_several_verdicts_that_one_span_tipped_the_gravest_is_told() -> None:
    passed = replace(FAILED, verdict=Verdict("pass"), candidate="int8")
    assert (
        verdicts_by_span([FAILED, passed])
        == verdicts_by_span([passed, FAILED])
        == {FAILED.span_id: "fail"}
    )
    assert verdicts_by_span([replace(passed, span_id=b"other-id")]) == {b"other-id": "pass"}
    assert verdicts_by_span([replace(FAILED, span_id=b"")]) == {}
