"""What waiting requests take in memory."""

import random

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.copies.room import Room


def test_bodies_that_several_copies_share_count_once() -> None:
    room = Room(100)
    room.enter(1, 60)
    assert room.has(1, 60)
    room.enter(1, 60)
    assert room.bytes == 60
    assert not room.has(2, 60)
    room.leave(1)
    assert room.bytes == 60
    room.leave(1)
    assert room.bytes == 0


def test_an_answer_counts_until_the_last_copy_has_come_to_something() -> None:
    room = Room(100)
    room.enter(1, 10)
    room.enter(1, 10)
    assert room.keep(1, 50)
    room.leave(1)
    assert room.bytes == 60
    assert room.keep(1, 1_000)
    room.leave(1)
    assert room.bytes == 0


def test_an_answer_that_would_have_to_wait_and_finds_no_room_is_not_kept() -> None:
    room = Room(100)
    room.enter(1, 10)
    room.enter(1, 10)
    assert not room.keep(1, 91)
    assert room.bytes == 10


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40))), st.integers(0, 2**32))
def test_it_never_holds_more_than_its_bound_and_ends_empty(
    steps: list[tuple[int, int]], seed: int
) -> None:
    room, rng, inside = Room(100), random.Random(seed), list[int]()
    for request, size in steps:
        if room.has(request, size):
            room.enter(request, size)
            inside.append(request)
        if inside and rng.random() < 0.4:
            leaving = inside.pop(rng.randrange(len(inside)))
            room.keep(leaving, size)
            room.leave(leaving)
        assert 0 <= room.bytes <= 100
    for request in inside:
        room.leave(request)
    assert room.bytes == 0
