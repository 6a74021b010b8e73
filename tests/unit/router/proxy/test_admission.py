"""What is in flight, counted: who gets in, who doesn't, and that the counts never drift."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import InvalidRequest, NotFound, Overloaded, Unavailable
from coalmine_router.proxy.admission import (
    Admission,
    NotReached,
    TurnedAway,
    UnreadMessage,
    turned_away_reason,
)
from coalmine_router.table import Limits


def admission(in_flight_max: int = 0, bytes_max: int = 0) -> Admission:
    return Admission("route 'digits'", Limits(in_flight_max, bytes_max))


def turned_away(admission: Admission, size: int) -> TurnedAway:
    with pytest.raises(TurnedAway) as caught:
        admission.admit(size)
    return caught.value


def test_the_last_that_fits_gets_in_and_the_next_does_not() -> None:
    of = admission(in_flight_max=2)
    of.admit(1)
    of.admit(1)
    error = turned_away(of, 1)
    assert error.reason == "in_flight"
    assert str(error) == "route 'digits': 2 requests are in flight, the most allowed"


def test_bytes_are_allowed_up_to_the_last_one() -> None:
    of = admission(bytes_max=10)
    of.admit(4)
    of.admit(6)
    of.admit(0)
    error = turned_away(of, 1)
    assert error.reason == "bytes"
    assert str(error) == (
        "route 'digits': requests and unread answers in flight hold 10 bytes, 10 are allowed; "
        "this one has 1"
    )


def test_who_is_turned_away_is_not_counted() -> None:
    of = admission(in_flight_max=1, bytes_max=10)
    of.admit(10)
    turned_away(of, 1)
    assert (of.in_flight, of.bytes) == (1, 10)
    of.release(10)
    of.admit(10)


def test_without_limits_everybody_gets_in() -> None:
    of = admission()
    for _ in range(1_000):
        of.admit(2**40)
    assert (of.in_flight, of.bytes) == (1_000, 1_000 * 2**40)


def test_limits_that_shrink_hold_for_the_next_and_throw_nobody_out() -> None:
    of = admission(in_flight_max=3)
    for _ in range(3):
        of.admit(1)
    of.limits = Limits(in_flight_max=2)
    of.release(1)
    assert of.in_flight == 2
    turned_away(of, 1)
    of.release(1)
    of.admit(1)
    assert (of.in_flight, of.bytes) == (2, 2)


def test_a_message_that_no_other_is_beside_fits_however_large() -> None:
    of, whole = admission(bytes_max=10), admission(bytes_max=10)
    of.admit(4)
    first = UnreadMessage(100, (of, whole), beside=4)
    assert (of.bytes, of.unread_bytes, whole.bytes) == (108, 104, 104)
    with pytest.raises(TurnedAway, match="hold 108 bytes, 10 are allowed; this message takes 1"):
        UnreadMessage(1, (of, whole))
    assert turned_away(of, 1).reason == "bytes"
    first.release()
    assert (of.bytes, of.unread_bytes, whole.bytes) == (4, 0, 0)
    UnreadMessage(1, (of, whole))


def test_a_message_fits_beside_others_up_to_the_last_byte_of_each_limit() -> None:
    route, whole = admission(bytes_max=100), admission(bytes_max=10)
    with UnreadMessage(4, (route, whole)):
        UnreadMessage(6, (route, whole))
        with pytest.raises(TurnedAway):
            UnreadMessage(1, (route, whole))
        assert (route.bytes, whole.bytes) == (10, 10)
    assert (route.bytes, whole.bytes, whole.unread_bytes) == (6, 6, 6)


def test_being_turned_away_is_overload_and_never_looks_like_a_broken_backend() -> None:
    assert issubclass(TurnedAway, Overloaded)
    assert TurnedAway.code == "RESOURCE_EXHAUSTED"
    assert NotReached.code == "UNAVAILABLE"


def test_counts_know_why_a_request_was_turned_away_but_not_of_wrong_ones() -> None:
    assert turned_away_reason(TurnedAway("bytes", "too many")) == "bytes"
    assert turned_away_reason(NotReached("nobody there")) == "not_ready"
    for error in (NotFound("no route"), InvalidRequest("wrong"), Unavailable("ending")):
        assert turned_away_reason(error) == ""


@given(
    st.integers(0, 5),
    st.integers(0, 50),
    st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60),
)
def test_however_they_come_and_go_the_counts_are_those_in_flight_and_within_limits(
    in_flight_max: int, bytes_max: int, steps: list[tuple[bool, int]]
) -> None:
    of = admission(in_flight_max, bytes_max)
    inside: list[int] = []
    for comes, number in steps:
        if comes:
            try:
                of.admit(number)
                inside.append(number)
            except TurnedAway:
                assert (in_flight_max and len(inside) == in_flight_max) or (
                    bytes_max and sum(inside) + number > bytes_max
                )
        elif inside:
            of.release(inside.pop(number % len(inside)))
        assert (of.in_flight, of.bytes) == (len(inside), sum(inside))
        assert not in_flight_max or of.in_flight <= in_flight_max
        assert not bytes_max or of.bytes <= bytes_max
    for size in inside:
        of.release(size)
    assert (of.in_flight, of.bytes) == (0, 0)
