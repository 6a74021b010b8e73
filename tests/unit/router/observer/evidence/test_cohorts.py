"""When a request of the split is counted: not before all that began with it can have ended."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.cohorts import WAIT_NS_MAX, Cohorts
from coalmine_router.observer.evidence.counts import Events, Evidence
from coalmine_router.observer.evidence.gates.traffic_gates import split_gate
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.verdict import Gate
from coalmine_router.proxy.block import Block

PAIR = Pair("digits", "stable", "canary")
WEIGHTS = (1_000, 9_000)
S = 10**9
TIMEOUT_NS = 2 * S
# The timeout, the second of the cohort itself, and ten for the report.
WAITED_S = 13


def counted(found: list[Events]) -> tuple[int, int]:
    return sum(each.total for each in found), sum(each.of_candidate for each in found)


def test_requests_are_counted_once_nobody_can_be_missing_any_more() -> None:
    cohorts = Cohorts(since_ns=0)
    cohorts.add(PAIR, WEIGHTS, is_candidate=False, began_ns=S)
    cohorts.add(PAIR, WEIGHTS, is_candidate=True, began_ns=2 * S - 1)
    cohorts.add(PAIR, WEIGHTS, is_candidate=False, began_ns=2 * S)
    assert cohorts.take_complete(PAIR, (1 + WAITED_S) * S - 1, TIMEOUT_NS) == []
    assert counted(cohorts.take_complete(PAIR, (1 + WAITED_S) * S, TIMEOUT_NS)) == (2, 1)
    assert cohorts.take_complete(PAIR, (1 + WAITED_S) * S, TIMEOUT_NS) == []
    assert counted(cohorts.take_complete(PAIR, 1_000 * S, TIMEOUT_NS)) == (1, 0)


def test_a_request_that_ends_after_its_cohort_was_counted_is_left_out() -> None:
    cohorts = Cohorts(since_ns=0)
    cohorts.take_complete(PAIR, 100 * S, TIMEOUT_NS)
    cohorts.add(PAIR, WEIGHTS, is_candidate=True, began_ns=50 * S)
    assert cohorts.left_out == 1
    assert cohorts.take_complete(PAIR, 1_000 * S, TIMEOUT_NS) == []


def test_what_began_before_anybody_looked_is_left_out() -> None:
    cohorts = Cohorts(since_ns=5 * S)
    cohorts.add(PAIR, WEIGHTS, is_candidate=True, began_ns=5 * S - 1)
    cohorts.add(PAIR, WEIGHTS, is_candidate=True, began_ns=5 * S)
    assert cohorts.left_out == 1
    assert counted(cohorts.take_complete(PAIR, 1_000 * S, TIMEOUT_NS)) == (1, 1)


def test_no_timeout_keeps_more_than_four_minutes_of_cohorts() -> None:
    cohorts = Cohorts(since_ns=0)
    cohorts.add(PAIR, WEIGHTS, is_candidate=True, began_ns=0)
    assert cohorts.take_complete(PAIR, WAIT_NS_MAX + S - 1, 24 * 3_600 * S) == []
    assert counted(cohorts.take_complete(PAIR, WAIT_NS_MAX + S, 24 * 3_600 * S)) == (1, 1)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.booleans()), max_size=60))
def test_each_request_is_counted_once_or_left_out(made: list[tuple[int, int, bool]]) -> None:
    cohorts = Cohorts(since_ns=10 * S)
    found: list[Events] = []
    for began_s, took_s, is_candidate in sorted(made, key=lambda each: each[0] + each[1]):
        cohorts.add(PAIR, WEIGHTS, is_candidate=is_candidate, began_ns=began_s * S)
        found += cohorts.take_complete(PAIR, (began_s + took_s) * S, TIMEOUT_NS)
    found += cohorts.take_complete(PAIR, 1_000 * S, TIMEOUT_NS)
    assert counted(found)[0] + cohorts.left_out == len(made)


@pytest.mark.parametrize("canary_s", [0.005, 0.5, 1.9])
def test_a_slow_candidate_does_not_make_it_seem_that_the_split_is_not_kept(
    canary_s: float,
) -> None:
    rng = random.Random(5)
    block = Block([9_000, 1_000], rng.random)
    ended = []
    for n in range(10_000):
        is_candidate, began_s = bool(block.draw()), n / 200
        ended.append((began_s + (canary_s if is_candidate else 0.005), began_s, is_candidate))
    evidence, gate, cohorts = Evidence(), Gate("split"), Cohorts(since_ns=0)
    for ended_s, began_s, is_candidate in sorted(ended):
        cohorts.add(PAIR, WEIGHTS, is_candidate=is_candidate, began_ns=int(began_s * S))
        for cohort in cohorts.take_complete(PAIR, int(ended_s * S), TIMEOUT_NS):
            evidence.assigned.add_all(cohort)
        gate = split_gate(evidence, gate)
    assert evidence.assigned.total > 7_000
    assert gate.finding == "open"
    assert gate.log_fail < gate.log_needed / 2
