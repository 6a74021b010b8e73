from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.backends.address_state import AddressState

UP = AddressState().connected().said(serving=True)


def test_a_new_address_is_neither_available_nor_settled() -> None:
    assert not AddressState().is_available
    assert not AddressState().is_settled
    assert AddressState().trouble == "no connection"


def test_a_connection_alone_is_not_enough_until_it_has_answered_something() -> None:
    connected = AddressState().connected()
    assert not connected.is_available
    assert connected.trouble == "has not said yet whether it serves"
    assert connected.said(serving=True).is_available
    assert connected.probed(answered=True).is_available


def test_who_says_not_serving_is_not_available_until_it_says_otherwise() -> None:
    down = UP.said(serving=False)
    assert down.trouble == "says NOT_SERVING"
    assert not down.probed(answered=True).is_available
    assert down.said(serving=True).is_available


def test_who_does_not_answer_is_not_available_until_it_answers_anything() -> None:
    silent = UP.probed(answered=False)
    assert silent.trouble == "does not answer"
    assert silent.probed(answered=True).is_available
    assert silent.said(serving=True).is_available


def test_what_was_said_on_a_lost_connection_does_not_count_on_the_next() -> None:
    for said in (UP.said(serving=False), UP.probed(answered=False)):
        assert said.lost().connected().said(serving=True).is_available
    assert not UP.lost().is_available
    assert not UP.lost().connected().is_available


def test_an_attempt_to_connect_that_failed_settles_it_and_says_why() -> None:
    failed = AddressState().unreached("Connection refused")
    assert failed.is_settled
    assert failed.trouble == "no connection: Connection refused"


def test_the_least_bad_is_who_still_answers_then_who_is_connected() -> None:
    standings = [UP, UP.said(serving=False), UP.probed(answered=False), UP.lost()]
    assert [each.rank for each in standings] == [0, 1, 2, 3]


STEPS: dict[str, Callable[[AddressState], AddressState]] = {
    "connected": AddressState.connected,
    "lost": AddressState.lost,
    "unreached": lambda standing: standing.unreached("why"),
    "up": lambda standing: standing.said(serving=True),
    "down": lambda standing: standing.said(serving=False),
    "alive": lambda standing: standing.probed(answered=True),
    "silent": lambda standing: standing.probed(answered=False),
}


@given(steps=st.lists(st.sampled_from(sorted(STEPS))))
def test_an_address_is_available_exactly_where_it_has_no_trouble(steps: list[str]) -> None:
    standing = AddressState()
    for step in steps:
        standing = STEPS[step](standing)
        assert standing.is_available == (not standing.trouble) == (standing.rank == 0)
