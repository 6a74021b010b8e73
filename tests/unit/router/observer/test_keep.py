"""Whether a trace is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.compare import Outcome
from coalmine_router.observer.keep import is_kept

OUTCOMES: list[Outcome] = ["match", "mismatch", "error", "skipped"]


@pytest.mark.parametrize(
    ("is_sampled", "is_ok", "duration_ns", "outcomes", "kept"),
    [
        (False, True, 100, [], False),
        (False, True, 100, ["match", "skipped"], False),
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
        outcomes=outcomes,
    )


@given(
    st.booleans(),
    st.integers(0, 10**12),
    st.none() | st.just(5),
    st.lists(st.sampled_from(OUTCOMES)),
)
def test_no_mismatch_is_ever_lost(
    is_ok: bool, duration_ns: int, slow_over_ns: int | None, outcomes: list[Outcome]
) -> None:
    assert is_kept(
        is_sampled=False,
        is_ok=is_ok,
        duration_ns=duration_ns,
        slow_over_ns=slow_over_ns,
        outcomes=[*outcomes, "mismatch"],
    )


def test_without_a_threshold_nothing_is_slow() -> None:
    assert not is_kept(
        is_sampled=False, is_ok=True, duration_ns=10**12, slow_over_ns=None, outcomes=[]
    )
