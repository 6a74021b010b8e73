import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.backends.ejection import EjectionRules, Ejections, excluded_names

SECOND = 10**9


def middle() -> float:
    return 0.5  # no jitter


def fail(ejections: Ejections, name: str, times: int, now_ns: int = 0, of: int = 4) -> int:
    """Return what the last of so many failures gives."""
    return [ejections.note_failure(name, now_ns, most=of // 2) for _ in range(times)][-1]


def test_the_fifth_failure_in_a_row_puts_an_address_out_for_five_seconds() -> None:
    ejections = Ejections(middle)
    assert fail(ejections, "a", 4) == 0
    assert fail(ejections, "a", 1) == 5 * SECOND
    assert ejections.out_names == ["a"]
    assert ejections.next_return_ns == 5 * SECOND


def test_a_call_that_goes_well_ends_the_row() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 4)
    ejections.note_answer("a", 0)
    assert fail(ejections, "a", 4) == 0


def test_nothing_is_remembered_of_an_address_that_does_well() -> None:
    ejections = Ejections(middle)
    ejections.note_answer("a", 0)
    fail(ejections, "a", 1)
    ejections.note_answer("a", 1)
    assert not ejections.marks


def test_an_address_returns_when_its_time_is_over_and_needs_a_new_row_to_go() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 5)
    assert ejections.readmit_due(5 * SECOND - 1) == []
    assert ejections.readmit_due(5 * SECOND) == ["a"]
    assert ejections.out_names == []
    assert ejections.next_return_ns is None
    assert fail(ejections, "a", 4, 5 * SECOND) == 0


def test_who_fails_again_soon_is_out_twice_as_long_up_to_five_minutes() -> None:
    ejections = Ejections(middle)
    now, spans = 0, []
    for _ in range(9):
        spans.append(fail(ejections, "a", 5, now) // SECOND)
        now += spans[-1] * SECOND
        ejections.readmit_due(now)
    assert spans == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_who_did_well_for_as_long_as_it_was_out_begins_at_five_seconds_again() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 5)
    ejections.readmit_due(5 * SECOND)
    assert fail(ejections, "a", 5, 6 * SECOND) == 10 * SECOND
    ejections.readmit_due(16 * SECOND)
    ejections.note_answer("a", 17 * SECOND)
    assert fail(ejections, "a", 5, 26 * SECOND) == 5 * SECOND


def test_who_fails_all_its_calls_is_out_twice_as_long_however_few_they_are() -> None:
    ejections = Ejections(middle)
    now, spans = 0, []
    for _ in range(4):
        spans.append(fail(ejections, "a", 5, now) // SECOND)
        now += spans[-1] * SECOND
        ejections.readmit_due(now)
        # Its share is small: the next row of five takes longer than it was out.
        now += 2 * spans[-1] * SECOND
    assert spans == [5, 10, 20, 40]


def test_who_did_well_for_as_long_as_it_was_out_is_forgotten() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 5)
    ejections.readmit_due(5 * SECOND)
    ejections.note_answer("a", 9 * SECOND)
    assert "a" in ejections.marks
    ejections.note_answer("a", 10 * SECOND)
    assert not ejections.marks


def test_failures_while_it_is_out_do_not_make_it_longer() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 5)
    assert fail(ejections, "a", 10, SECOND) == 0
    assert ejections.next_return_ns == 5 * SECOND


@pytest.mark.parametrize(("of", "most"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)])
def test_never_are_more_than_half_of_the_addresses_out(of: int, most: int) -> None:
    ejections = Ejections(middle)
    for n in range(of + 1):
        fail(ejections, f"address-{n}", 20, of=of)
    assert len(ejections.out_names) == most


def test_an_address_that_had_to_stay_goes_once_another_has_returned() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 5, of=2)
    assert fail(ejections, "b", 9, of=2) == 0
    ejections.readmit_due(5 * SECOND)
    assert fail(ejections, "b", 1, 5 * SECOND, of=2) == 5 * SECOND


def test_addresses_that_are_gone_are_forgotten() -> None:
    ejections = Ejections(middle)
    fail(ejections, "a", 5)
    fail(ejections, "b", 2)
    ejections.forget_all_but({"b"})
    assert set(ejections.marks) == {"b"}


def test_spans_are_jittered_by_a_fifth_both_ways() -> None:
    spans = []
    for seed in range(200):
        ejections = Ejections(random.Random(seed).random)
        spans.append(fail(ejections, "a", 5) / SECOND)
    assert 4 <= min(spans) < 4.2
    assert 5.8 < max(spans) <= 6


@given(
    out=st.lists(st.sampled_from("abcdefgh"), unique=True),
    names=st.lists(st.sampled_from("abcdefgh"), unique=True),
)
def test_of_those_that_may_get_calls_half_are_never_kept_out(
    out: list[str], names: list[str]
) -> None:
    without = excluded_names(out, names, most=len(names) // 2)
    assert without <= set(out) & set(names)
    assert len(without) <= len(names) / 2
    assert len(without) == min(len(set(out) & set(names)), len(names) // 2)


@given(
    events=st.lists(
        st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 20 * SECOND)), max_size=80
    )
)
def test_whatever_happens_half_stay_and_nobody_is_out_for_more_than_five_minutes(
    events: list[tuple[str, bool, int]],
) -> None:
    ejections, now = Ejections(random.Random(1).random, EjectionRules(failures=1)), 0
    for name, went_well, later in events:
        now += later
        ejections.readmit_due(now)
        if went_well:
            ejections.note_answer(name, now)
        else:
            ejections.note_failure(name, now, most=2)
        assert len(ejections.out_names) <= 2
        assert all(0 <= mark.until_ns <= now + 300 * SECOND for mark in ejections.marks.values())
