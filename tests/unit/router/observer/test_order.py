"""Things come out in the order in which they were announced."""

import random
from collections.abc import Iterable, Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.gates.all_gates import GateSettings, verdict_after
from coalmine_router.observer.evidence.verdict import NO_VERDICT
from coalmine_router.observer.order import InOrder
from tests.doubles.evidence import a_comparison, add_request


def test_what_is_ready_early_waits_for_those_before_it() -> None:
    order: InOrder[str] = InOrder()
    first, second, third = (order.announce() for _ in range(3))
    assert order.mark_ready(third, "third") == []
    assert order.mark_ready(first, "first") == ["first"]
    assert order.mark_ready(second, "second") == ["second", "third"]
    assert (len(order), order.out_of_turn) == (0, 0)


def test_over_the_bound_the_first_is_no_longer_waited_for() -> None:
    order: InOrder[int] = InOrder(waiting_max=2)
    turns = [order.announce() for _ in range(4)]
    assert order.mark_ready(turns[1], 1) == [1], "0 has had its turn"
    assert order.mark_ready(turns[3], 3) == []
    assert order.mark_ready(turns[0], 0) == [0]
    assert order.out_of_turn == 1
    assert order.mark_ready(turns[2], 2) == [2, 3]


@given(count=st.integers(1, 60), bound=st.integers(1, 80), seed=st.integers(0, 2**32))
def test_everything_comes_out_once_and_in_order_within_the_bound(
    count: int, bound: int, seed: int
) -> None:
    order: InOrder[int] = InOrder(bound)
    turns = [order.announce() for _ in range(count)]
    out: list[int] = []
    for number in random.Random(seed).sample(range(count), count):
        out += order.mark_ready(turns[number], number)
        assert len(order) <= max(bound, count - len(out))
    assert sorted(out) == list(range(count))
    assert len(order) == 0
    if bound >= count:
        assert out == list(range(count))


# ---------------------------------------------------------------- why it is done

RUNS, REQUESTS, IN_FLIGHT, ALLOWED = 60, 400, 100, 0.01
SAME, BAD = a_comparison(0), a_comparison(4)


def test_mismatches_that_come_back_first_do_not_fail_who_is_just_as_bad_as_allowed() -> None:
    """One request begins at each step; mismatches end at once, matches after a hundred more."""
    rng = np.random.default_rng(81)
    runs = [rng.random(REQUESTS) < ALLOWED for _ in range(RUNS)]
    by_end = [np.argsort(np.arange(REQUESTS) + np.where(bad, 0, IN_FLIGHT)) for bad in runs]
    as_they_end = [fails(bad[ended]) for bad, ended in zip(runs, by_end, strict=True)]
    assert np.mean(as_they_end) > 0.1, "or the order would be for nothing"
    in_order = [fails(in_turn(bad, ended)) for bad, ended in zip(runs, by_end, strict=True)]
    assert np.mean(in_order) <= 0.05


def in_turn(bad: np.ndarray, ended: np.ndarray) -> Iterator[bool]:
    """Return what the requests are found to be, as they end, through the order."""
    order: InOrder[str] = InOrder()
    turns = [order.announce() for _ in bad]
    for number in ended:
        yield from (each == "bad" for each in order.mark_ready(turns[number], _named(bad[number])))


def _named(is_bad: bool) -> str:
    return "bad" if is_bad else "good"


def fails(found: Iterable[bool]) -> bool:
    """Return whether the candidate fails, judged after each request."""
    evidence, verdict = Evidence(), NO_VERDICT
    for is_bad in found:
        add_request(evidence, BAD if is_bad else SAME)
        evidence.failures.add(0.0)
        verdict = verdict_after(evidence, GateSettings(), verdict, at_ns=1, trace_id=b"t")
    return verdict.verdict == "fail"
