"""What `/metrics` says of requests, reports and copies."""

from collections import Counter

from coalmine_router.observer.output.metrics import RouterMetrics
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey, ReportTotals
from coalmine_router.observer.traffic_counts import TrafficCounts
from tests.doubles.metrics_text import Exposed, exposed, series


def told(
    *,
    traffic: TrafficCounts | None = None,
    reports: ReportTotals | None = None,
    lanes: dict[CopyQueueKey, CopyCounts] | None = None,
    **results: dict[str, int],
) -> Exposed:
    return exposed(
        RouterMetrics(
            traffic=traffic or TrafficCounts(),
            reports=reports or ReportTotals(),
            streams_turned_away=lambda: 0,
            lanes=lambda: list((lanes or {}).items()),
            spans=lambda: results.get("spans", {}),
            refusals_left_out=lambda: 0,
            mismatches=lambda: results.get("mismatches", {}),
        )
    )


def test_a_router_that_has_seen_nothing_says_so() -> None:
    assert told() == {
        series("reports_offered_total"): 0,
        series("reports_received_total"): 0,
        series("reports_unreadable_total"): 0,
        series("report_streams_turned_away_total"): 0,
        series("refusals_untraced_total"): 0,
    }


def test_durations_come_as_a_histogram_in_seconds() -> None:
    traffic = TrafficCounts()
    for duration_ns in (900_000, 1_000_000, 1_000_001, 2 * 10**11):
        traffic.count_answer("digits", "stable", code="OK", duration_ns=duration_ns)
    found = told(traffic=traffic)
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
    traffic = TrafficCounts()
    traffic.count_failure("digits", "canary", code="UNAVAILABLE")
    traffic.count_fallback("digits", "canary", reason="UNAVAILABLE")
    traffic.count_refusal("digits", "in_flight")
    found = told(traffic=traffic)
    key = {"route": "digits", "variant": "canary"}
    assert found[series("fallbacks_total", **key, reason="UNAVAILABLE")] == 1
    assert found[series("requests_total", **key, code="UNAVAILABLE")] == 1
    assert found[series("request_duration_seconds_count", **key)] == 0
    assert found[series("turned_away_total", route="digits", reason="in_flight")] == 1


def test_what_was_given_up_is_told_with_its_reason() -> None:
    reports = ReportTotals()
    reports.offered, reports.received, reports.dropped = 10, 7, Counter(buffer_full=3)
    spans = {"exported": 4, "dropped_queue_full": 1}
    found = told(reports=reports, spans=spans, mismatches={"kept": 9})
    assert found[series("reports_offered_total")] == 10
    assert found[series("reports_received_total")] == 7
    assert found[series("reports_dropped_total", reason="buffer_full")] == 3
    assert found[series("spans_total", result="exported")] == 4
    assert found[series("spans_total", result="dropped_queue_full")] == 1
    assert found[series("mismatches_total", result="kept")] == 9


def test_the_copies_of_each_queue_add_up() -> None:
    totals = CopyCounts(
        offered=20,
        waiting=2,
        under_way=1,
        timed_out=3,
        failed=4,
        answered=5,
        compared=9,
        uncompared=2,
        dropped=Counter(queue_full=5),
        circuit="open",
    )
    key = {"route": "digits", "role": "audit", "variant": "canary"}
    found = told(
        lanes={CopyQueueKey(**key): totals, CopyQueueKey("digits", "noise", "stable"): CopyCounts()}
    )

    def value(name: str, **labels: str) -> float:
        return found[series(f"shadows_{name}", **key, **labels)]

    on_the_way = value("waiting") + value("under_way")
    assert value("offered_total") == 20
    assert value("sent_total") + on_the_way + value("dropped_total", reason="queue_full") == 20
    ended = [value(f"{name}_total") for name in ("timed_out", "failed", "answered")]
    assert ended == [3, 4, 5]
    assert sum(ended) == value("sent_total")
    assert (value("compared_total"), value("uncompared_total")) == (9, 2)
    assert value("circuit_open") == 1
    noise = {"route": "digits", "role": "noise", "variant": "stable"}
    assert found[series("shadows_circuit_open", **noise)] == 0
