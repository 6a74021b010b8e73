"""Whether a trace is kept."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.comparison.result import Comparison, Outcome
from coalmine_router.observer.observed_request import PairResult, Role
from coalmine_router.observer.trace_retention import is_kept

OUTCOMES: list[Outcome] = list(get_args(Outcome))


def found(outcome: Outcome, role: Role = "shadow") -> PairResult:
    return PairResult(role, "stable", "canary", Comparison(outcome), b"", 0, 0)


@pytest.mark.parametrize(
    ("is_sampled", "is_ok", "duration_ns", "outcomes", "kept"),
    [
        (False, True, 100, [], False),
        (False, True, 100, ["match", "skipped", "ignored"], False),
        (True, True, 1, ["match"], True),
        (False, False, 1, [], True),
        (False, True, 101, ["match"], True),
        (False, True, 1, ["match", "mismatch"], True),
        (False, True, 1, ["error", "match"], True),
    ],
)
def test_a_trace_is_kept_for_the_head_a_failure_slowness_or_a_difference(
    is_sampled: bool, is_ok: bool, duration_ns: int, outcomes: list[Outcome], kept: bool
) -> None:
    assert kept is is_kept(
        is_sampled=is_sampled,
        is_ok=is_ok,
        duration_ns=duration_ns,
        slow_over_ns=100,
        found=map(found, outcomes),
    )


@given(
    st.booleans(),
    st.integers(0, 10**12),
    st.none() | st.just(5),
    st.lists(st.sampled_from(OUTCOMES)),
    st.sampled_from(["shadow", "audit"]),
)
def test_no_mismatch_of_a_candidate_is_ever_lost(
    is_ok: bool, duration_ns: int, slow_over_ns: int | None, outcomes: list[Outcome], role: Role
) -> None:
    assert is_kept(
        is_sampled=False,
        is_ok=is_ok,
        duration_ns=duration_ns,
        slow_over_ns=slow_over_ns,
        found=[*map(found, outcomes), found("mismatch", role)],
    )


def test_without_a_threshold_nothing_is_slow() -> None:
    assert not is_kept(is_sampled=False, is_ok=True, duration_ns=10**12, slow_over_ns=None)


@pytest.mark.parametrize("outcome", ["mismatch", "error"])
def test_a_reference_that_differs_from_itself_is_no_reason(outcome: Outcome) -> None:
    assert not is_kept(
        is_sampled=False,
        is_ok=True,
        duration_ns=1,
        slow_over_ns=None,
        found=[found(outcome, "noise"), found("match")],
    )


def test_what_tipped_a_verdict_is_kept_though_it_matched() -> None:
    for tipped in (True, False):
        assert tipped is is_kept(
            is_sampled=False,
            is_ok=True,
            duration_ns=1,
            slow_over_ns=None,
            found=[found("match")],
            tipped=tipped,
        )
