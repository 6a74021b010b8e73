"""What `/metrics` says of the router."""

from collections import Counter

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from coalmine_router.observer.compare import Comparison, OutputResult
from coalmine_router.observer.evidence import Evidence, Pair
from coalmine_router.observer.metrics import RouterMetrics
from coalmine_router.observer.totals import ReportTotals, ShadowTotals
from coalmine_router.observer.traffic import Traffic


def exposed(
    *,
    traffic: Traffic | None = None,
    evidence: Evidence | None = None,
    reports: ReportTotals | None = None,
    shadows: dict[tuple[str, str], ShadowTotals] | None = None,
    **results: dict[str, int],
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(
        RouterMetrics(
            traffic=traffic or Traffic(),
            evidence=evidence or Evidence(),
            reports=reports or ReportTotals(),
            streams_turned_away=lambda: 0,
            shadows=lambda: list((shadows or {}).items()),
            spans=lambda: results.get("spans", {}),
            mismatches=lambda: results.get("mismatches", {}),
        )
    )
    return {
        (
            sample.name.removeprefix("coalmine_router_"),
            frozenset(sample.labels.items()),
        ): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_a_router_that_has_seen_nothing_says_so() -> None:
    found = exposed()
    assert found == {
        series("reports_offered_total"): 0,
        series("reports_received_total"): 0,
        series("reports_unreadable_total"): 0,
        series("report_streams_turned_away_total"): 0,
    }


def test_durations_come_as_a_histogram_in_seconds() -> None:
    traffic = Traffic()
    for duration_ns in (900_000, 1_000_000, 1_000_001, 2 * 10**11):
        traffic.answered("digits", "stable", code="OK", duration_ns=duration_ns)
    found = exposed(traffic=traffic)
    key = {"route": "digits", "variant": "stable"}
    buckets = {
        bound: found[series("request_duration_seconds_bucket", **key, le=bound)]
        for bound in ("0.0005", "0.001", "0.0025", "100.0", "+Inf")
    }
    assert buckets == {"0.0005": 0, "0.001": 2, "0.0025": 3, "100.0": 3, "+Inf": 4}
    assert found[series("request_duration_seconds_count", **key)] == 4
    assert found[series("request_duration_seconds_sum", **key)] == 200.002900001
    assert found[series("requests_total", **key, code="OK")] == 4


def test_fallbacks_and_refusals_are_told_with_their_reasons() -> None:
    traffic = Traffic()
    traffic.failed("digits", "canary", code="UNAVAILABLE")
    traffic.fell_back("digits", "canary", reason="UNAVAILABLE")
    traffic.turned_away("digits", "in_flight")
    found = exposed(traffic=traffic)
    key = {"route": "digits", "variant": "canary"}
    assert found[series("fallbacks_total", **key, reason="UNAVAILABLE")] == 1
    assert found[series("requests_total", **key, code="UNAVAILABLE")] == 1
    assert found[series("request_duration_seconds_count", **key)] == 0
    assert found[series("turned_away_total", route="digits", reason="in_flight")] == 1


def test_comparisons_are_told_by_pair_and_output() -> None:
    evidence = Evidence()
    results = (OutputResult("y", "mismatch", 0.5), OutputResult("label", "match"))
    evidence.add(Pair("digits", "stable", "canary"), Comparison("mismatch", outputs=results))
    found = exposed(evidence=evidence)
    pair = {"route": "digits", "reference": "stable", "candidate": "canary"}
    assert found[series("comparisons_total", **pair, outcome="mismatch")] == 1
    assert found[series("output_comparisons_total", **pair, output="y", outcome="mismatch")] == 1
    assert found[series("output_comparisons_total", **pair, output="label", outcome="match")] == 1


def test_what_was_given_up_is_told_with_its_reason() -> None:
    reports = ReportTotals()
    reports.offered, reports.received, reports.dropped = 10, 7, Counter(buffer_full=3)
    shadows = {("digits", "canary"): ShadowTotals(5, 3, Counter(queue_full=2))}
    spans = {"exported": 4, "dropped_queue_full": 1}
    found = exposed(reports=reports, shadows=shadows, spans=spans, mismatches={"kept": 9})
    key = {"route": "digits", "variant": "canary"}
    assert found[series("reports_offered_total")] == 10
    assert found[series("reports_received_total")] == 7
    assert found[series("reports_dropped_total", reason="buffer_full")] == 3
    assert found[series("shadows_offered_total", **key)] == 5
    assert found[series("shadows_sent_total", **key)] == 3
    assert found[series("shadows_dropped_total", **key, reason="queue_full")] == 2
    assert found[series("spans_total", result="exported")] == 4
    assert found[series("spans_total", result="dropped_queue_full")] == 1
    assert found[series("mismatches_total", result="kept")] == 9
