"""What each variant answered."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.codes import code_name
from coalmine_router.observer.totals import REASONS_MAX
from coalmine_router.observer.traffic_counts import BOUNDS_NS, Latencies, TrafficCounts


def latencies(*durations_ns: int) -> Latencies:
    made = Latencies()
    for each in durations_ns:
        made.add(each)
    return made


def test_requests_are_counted_by_variant_status_and_split() -> None:
    traffic = TrafficCounts()
    traffic.count_answer("digits", "canary", code="OK", duration_ns=10**6)
    traffic.count_assignment("digits", "canary")
    traffic.count_answer("digits", "canary", code="INTERNAL", duration_ns=10**6)
    traffic.count_answer("digits", "stable", code="OK", duration_ns=10**6)
    canary = traffic.variant("digits", "canary")
    assert (canary.requests, canary.by_split) == (2, 1)
    assert dict(canary.by_code) == {"OK": 1, "INTERNAL": 1}
    assert [key for key, _ in traffic.variants()] == [("digits", "canary"), ("digits", "stable")]


def test_a_charged_failure_is_a_request_of_the_variant_and_no_latency_of_it() -> None:
    traffic = TrafficCounts()
    traffic.count_failure("digits", "canary", code="UNAVAILABLE")
    traffic.count_fallback("digits", "canary", reason="UNAVAILABLE")
    traffic.count_fallback("digits", "canary", reason="not_ready")
    canary = traffic.variant("digits", "canary")
    assert (canary.requests, dict(canary.by_code)) == (1, {"UNAVAILABLE": 1})
    assert dict(canary.charged) == {"UNAVAILABLE": 1}
    assert dict(canary.fallbacks) == {"UNAVAILABLE": 1, "not_ready": 1}
    assert sum(canary.latencies.counts) == 0


def test_what_is_turned_away_is_counted_by_route_and_the_reasons_are_bounded() -> None:
    traffic = TrafficCounts()
    for number in range(100):
        traffic.count_refusal("digits", f"r{number}")
    traffic.count_refusal("", "no_route")
    assert sum(traffic.refusals_of("digits").values()) == 100
    assert len(traffic.refusals_of("digits")) == REASONS_MAX
    assert dict(traffic.refusals())[""] == {"no_route": 1}
    assert traffic.refusals_of("unheard-of") == {}


def test_a_variant_that_was_never_asked_has_no_traffic_and_leaves_no_trace() -> None:
    traffic = TrafficCounts()
    nobody = traffic.variant("digits", "nobody")
    assert (nobody.requests, nobody.latencies.quantile_ns(0.99)) == (0, 0.0)
    assert list(traffic.variants()) == []


@pytest.mark.parametrize(
    ("duration_ns", "position"),
    [
        (0, 0),
        (BOUNDS_NS[0], 0),
        (BOUNDS_NS[0] + 1, 1),
        (10**11, len(BOUNDS_NS) - 1),
        (10**11 + 1, len(BOUNDS_NS)),
    ],
)
def test_a_bound_belongs_to_its_bucket(duration_ns: int, position: int) -> None:
    assert latencies(duration_ns).counts[position] == 1


def test_buckets_are_thirteen_percent_apart_at_most() -> None:
    steps = [high / low for low, high in pairwise(BOUNDS_NS)]
    assert min(steps) > 1
    assert max(steps) < 1.15


def test_beyond_the_last_bound_a_quantile_is_that_bound() -> None:
    assert latencies(10**12).quantile_ns(0.5) == 10**11


@given(
    st.lists(st.integers(10**4 + 1, 10**11), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0])
)
def test_a_quantile_is_within_a_bucket_of_the_truth(durations: list[int], share: float) -> None:
    ordered = sorted(durations)
    # The smallest duration that so large a share does not exceed.
    truth = next(each for rank, each in enumerate(ordered, 1) if rank >= share * len(ordered))
    found = latencies(*durations).quantile_ns(share)
    assert truth / 1.15 <= found <= truth * 1.15


@pytest.mark.parametrize(
    ("number", "name"), [(0, "OK"), (14, "UNAVAILABLE"), (16, "UNAUTHENTICATED"), (17, "UNKNOWN")]
)
def test_status_codes_have_their_names(number: int, name: str) -> None:
    assert code_name(number) == name
