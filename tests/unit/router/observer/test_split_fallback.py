"""Errors where stable stands in: who gets half of the time, and who all of it."""

import math
from typing import Any

import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.evidence.betting.spells import SplitBets
from coalmine_router.observer.split import split_events

TIMEOUT_NS = 10**9
RUNS, REQUESTS, OF_A_SPELL = 300, 9_000, 60
WEIGHT_BP = 2_500
EXPECTED = WEIGHT_BP / 10_000
SPLIT = {"canary": WEIGHT_BP, "stable": 10_000 - WEIGHT_BP}
DEADLINE = 4
# 0.2 s and longer: Pareto's, exponent 2. 16 % take more than half of the time, 4 % more than all.
LATENCIES_NS = [int(2 * 10**8 / (1 - rank) ** 0.5) for rank in np.arange(0.5, 1_000) / 1_000]
STABLE, HALVED, WHOLE = range(3)


def ended(way: int, latency_ns: int, timeout_ns: int = TIMEOUT_NS) -> pb.Report:
    """Return the report of a request whose first call would have taken so long."""
    given_ns = TIMEOUT_NS // 2 if way == HALVED else TIMEOUT_NS
    variant = "stable" if way == STABLE else "canary"
    call = pb.Attempt(variant=variant, duration_ns=min(latency_ns, given_ns))
    report = pb.Report(assignment=pb.ASSIGNMENT_SPLIT, timeout_ns=timeout_ns, split_bp=SPLIT)
    report.variant = variant
    if latency_ns > given_ns:
        call.status_code = DEADLINE
        if way == HALVED:
            report.variant, report.assignment = "stable", pb.ASSIGNMENT_FALLBACK
            report.chosen, report.chosen_by = "canary", pb.ASSIGNMENT_SPLIT
    report.attempts.append(call)
    return report


def errors(timeout_ns: int = TIMEOUT_NS) -> Any:
    """Return which calls are errors, by the way that they went and the rank of their latency."""
    reports = [[ended(way, took, timeout_ns) for took in LATENCIES_NS] for way in range(3)]
    return np.array([[next(split_events(each, None)).is_error for each in way] for way in reports])


def failing(is_error: Any, seed: int, *, worse: float = 1.0, spent: float = 0.3) -> Any:
    """Return after how many requests each run fails the canary.

    `worse`: how much more often the canary is as slow; `spent`: for how much of the time there is
    no budget for second calls, in stretches of a hundred requests.
    """
    chance = np.random.default_rng(seed)
    shape = RUNS, REQUESTS
    is_canary = chance.random(shape) < WEIGHT_BP / 10_000
    is_spent = np.repeat(chance.random((RUNS, REQUESTS // 100)) < spent, 100, axis=1)
    far = chance.random(shape) / np.where(is_canary, worse, 1.0)
    way = np.where(is_canary, np.where(is_spent, WHOLE, HALVED), STABLE)
    seen = is_error[way, ((1 - far) * len(LATENCIES_NS)).astype(int).clip(max=999)]
    by_spell = RUNS, REQUESTS // OF_A_SPELL, OF_A_SPELL
    events = seen.reshape(by_spell).sum(axis=2)
    own = (seen & is_canary).reshape(by_spell).sum(axis=2)
    bets, found = SplitBets.of(RUNS), np.full(RUNS, REQUESTS + 1)
    for number in range(by_spell[1]):
        share = own[:, number] / events[:, number].clip(min=1)
        # Without an event there is no spell.
        bets.observe(np.where(events[:, number], share, EXPECTED), EXPECTED)
        is_new = (bets.log_fail() >= math.log(20)) & (found > REQUESTS)
        found[is_new] = (number + 1) * OF_A_SPELL
    return found


@pytest.mark.parametrize("spent", [0.0, 0.3])
def test_equal_latencies_with_a_heavy_tail_seldom_fail_the_side_that_gets_half_of_the_time(
    spent: float,
) -> None:
    assert (failing(errors(), 31, spent=spent) <= REQUESTS).mean() <= 0.05


def test_judged_by_status_alone_they_would() -> None:
    assert (failing(errors(timeout_ns=0), 31) <= REQUESTS).mean() > 0.9


def test_a_canary_that_hangs_twice_as_often_is_still_found() -> None:
    found = failing(errors(), 32, worse=2.0)
    assert (found <= REQUESTS).all()
