"""Which of several targets is called."""

from coalmine_router.observer.copies.turns import Turns

SECOND_NS = 10**9
THREE = ("a:1", "b:1", "c:1")


def called(turns: Turns, times: int, now_ns: int = 0) -> list[str]:
    return [turns.next(THREE, now_ns) for _ in range(times)]


def test_each_target_gets_its_turn() -> None:
    assert sorted(called(Turns(), 6)) == sorted(THREE * 2)


def test_a_target_that_just_failed_is_left_out_for_a_second() -> None:
    turns = Turns()
    turns.missed("b:1", 0)
    assert "b:1" not in called(turns, 30, SECOND_NS - 1)
    assert called(turns, 30, SECOND_NS).count("b:1") == 10


def test_a_target_that_answers_after_all_is_in_again() -> None:
    turns = Turns()
    turns.missed("b:1", 0)
    turns.reached("b:1")
    assert "b:1" in called(turns, 3)


def test_where_all_have_failed_all_are_called() -> None:
    turns = Turns()
    for target in THREE:
        turns.missed(target, 0)
    assert set(called(turns, 6)) == set(THREE)


def test_targets_that_have_gone_are_forgotten() -> None:
    turns = Turns()
    for number in range(1_000):
        turns.missed(f"{number}:1", 0)
        turns.next(THREE, 0)
    assert not turns._missed_ns
