"""Which of the examples that wait are written, when, and who goes where there are too many."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.copies_section import KeptConfig
from coalmine_router.observer.examples.waiting_examples import WaitingExamples, WaitingLimits

SECOND_NS = 10**9
MIB = 2**20


def record(name: int, *, size: int = 0, badness: float = 0.0, **fields: Any) -> pb.Mismatch:
    told = {"route": "r", "candidate": "c", "kind": "value", "id": str(name), **fields}
    differences = [pb.Difference(max_abs_diff=badness)]
    return pb.Mismatch(request=bytes(size), differences=differences, **told)


class Hand:
    """Examples that wait, and a time that a test moves."""

    def __init__(self, limits: WaitingLimits | None = None, **kept: Any) -> None:
        self.waiting = WaitingExamples(limits or WaitingLimits(), 0)
        self.kept = KeptConfig(**kept)
        self.now_ns = 0

    def add(self, *records: pb.Mismatch) -> None:
        for each in records:
            self.waiting.add(each, self.kept, self.now_ns)

    def take(self, route: str | None = None, after_s: float = 0) -> list[str]:
        self.now_ns += int(after_s * SECOND_NS)
        return [each.record.id for each in self.waiting.take(self.now_ns, route)]


def test_the_worst_and_the_newest_go_first_and_in_turn() -> None:
    hand = Hand(per_second=0.1)
    hand.add(*(record(each, badness=[5, 0, 9, 1, 0, 0][each]) for each in range(6)))

    assert hand.take() == ["2", "5", "0"]


def test_each_kind_has_its_turn_before_the_second_of_a_frequent_one() -> None:
    hand = Hand(per_second=0.1)
    hand.add(record(0, kind="shape"), *(record(each) for each in range(1, 99)))

    assert set(hand.take()) == {"0", "1", "98"}


def test_large_ones_are_written_at_so_many_a_second() -> None:
    hand = Hand(WaitingLimits(written_bytes_burst=100 * MIB), per_second=5)
    hand.add(*(record(each, size=40_000) for each in range(180)))

    assert len(hand.take()) == 150
    assert [len(hand.take(after_s=1)) for _ in range(8)] == [5] * 6 + [0] * 2


def test_bytes_are_bounded_over_all_routes_and_each_has_its_turn() -> None:
    hand = Hand()
    for name in "abcdef":
        hand.add(*(record(each, size=192_000, route=name) for each in range(30)))
    taken: list[str] = []
    for seconds in range(0, 20, 5):
        taken += (each.record.route for each in hand.waiting.take(seconds * SECOND_NS, None))
        counts = [taken.count(name) for name in "abcdef"]
        assert max(counts) - min(counts) <= 1

    assert len(taken) * 196_000 <= 4 * MIB + 15 * MIB / 2 + 196_000


def test_small_ones_wait_until_there_are_as_many_as_go_at_once_unless_somebody_reads() -> None:
    hand = Hand(per_second=1)
    hand.add(*(record(each) for each in range(99)))

    assert len(hand.take()) == 30
    assert hand.take(after_s=20) == []
    assert len(hand.take(after_s=10)) == 30
    assert len(hand.take("r", after_s=5)) == 5
    assert hand.take("another") == []


def test_a_large_debt_is_paid_before_anything_else_is_written() -> None:
    hand = Hand(WaitingLimits(route_bytes_max=16 * MIB))
    hand.add(record(0, size=10 * MIB), record(1))

    assert hand.take() == ["0"]
    assert hand.take("r", after_s=11) == []
    assert hand.take("r", after_s=3) == ["1"]


def test_what_was_deleted_counts_too() -> None:
    hand = Hand()
    hand.waiting.spend(6 * MIB)
    hand.add(record(0))

    assert hand.take(after_s=3) == []
    assert hand.take(after_s=2) == ["0"]


def test_where_too_many_wait_the_least_valuable_go() -> None:
    hand = Hand(WaitingLimits(route_examples_max=8))
    hand.add(record(0, badness=9), *(record(each) for each in range(1, 101)))

    taken = hand.take()
    assert taken[:2] == ["0", "100"]
    assert len(taken) <= 8
    assert hand.waiting.passed_over == 101 - len(taken)


def test_an_example_larger_than_a_routes_share_waits_alone() -> None:
    hand = Hand(WaitingLimits(route_bytes_max=MIB))
    hand.add(record(0, size=2 * MIB), record(1, size=2 * MIB))

    assert hand.take() == ["0"]
    assert hand.waiting.passed_over == 1


def test_over_all_routes_the_one_with_most_gives_first() -> None:
    hand = Hand(WaitingLimits(bytes_max=4 * MIB))
    hand.add(record(0, size=MIB, route="small"))
    hand.add(*(record(each, size=MIB, route="large") for each in range(1, 9)))
    taken = [each.record for each in hand.waiting.take_all()]

    assert "small" in {each.route for each in taken}
    assert len(taken) + hand.waiting.passed_over == 9
    assert sum(each.ByteSize() for each in taken) <= 4 * MIB


def test_what_could_never_wait_is_refused() -> None:
    hand = Hand(WaitingLimits(bytes_max=MIB))
    hand.add(record(0, size=MIB))

    assert (hand.take(), hand.waiting.refused) == ([], 1)


Step = tuple[int, int, str, str]


@settings(max_examples=100)
@given(
    came=st.lists(
        st.tuples(
            st.integers(0, 9),
            st.sampled_from([0, 10_000, 300_000]),
            st.sampled_from(["value", "nan"]),
            st.sampled_from(["r", "s"]),
        ),
        min_size=1,
        max_size=80,
    ),
    takes=st.sets(st.integers(0, 80)),
)
def test_the_worst_and_the_newest_of_each_kind_are_never_lost_to_the_bounds(
    came: list[Step], takes: set[int]
) -> None:
    limits = WaitingLimits(route_examples_max=6, route_bytes_max=2 * MIB, bytes_max=4 * MIB)
    hand = Hand(limits, per_second=0.2)
    taken: list[str] = []
    for place, (badness, size, kind, route) in enumerate(came):
        hand.add(record(place, badness=badness, size=size, kind=kind, route=route))
        taken += hand.take(after_s=1) if place in takes else []
    taken += (each.record.id for each in hand.waiting.take_all())

    for group in {(kind, route) for _, _, kind, route in came}:
        places = [at for at, each in enumerate(came) if each[2:] == group]
        worst = min(places, key=lambda at: (-came[at][0], at))
        assert {str(worst), str(places[-1])} <= set(taken)
    assert len(taken) + hand.waiting.passed_over == len(came)
