from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.backends.address_state import AddressState

UP = AddressState().after_connecting().after_health_report(serving=True)


def test_a_new_address_is_neither_available_nor_settled() -> None:
    assert not AddressState().is_available
    assert not AddressState().is_settled
    assert AddressState().trouble == "no connection"


def test_a_connection_alone_is_not_enough_until_it_has_answered_something() -> None:
    connected = AddressState().after_connecting()
    assert not connected.is_available
    assert connected.trouble == "has not said yet whether it serves"
    assert connected.after_health_report(serving=True).is_available
    assert connected.after_probe(answered=True).is_available


def test_who_says_not_serving_is_not_available_until_it_says_otherwise() -> None:
    down = UP.after_health_report(serving=False)
    assert down.trouble == "says NOT_SERVING"
    assert not down.after_probe(answered=True).is_available
    assert down.after_health_report(serving=True).is_available


def test_who_does_not_answer_is_not_available_until_it_answers_anything() -> None:
    silent = UP.after_probe(answered=False)
    assert silent.trouble == "does not answer"
    assert silent.after_probe(answered=True).is_available
    assert silent.after_health_report(serving=True).is_available


def test_what_was_said_on_a_lost_connection_does_not_count_on_the_next() -> None:
    for said in (UP.after_health_report(serving=False), UP.after_probe(answered=False)):
        assert said.after_loss().after_connecting().after_health_report(serving=True).is_available
    assert not UP.after_loss().is_available
    assert not UP.after_loss().after_connecting().is_available


def test_an_attempt_to_connect_that_failed_settles_it_and_says_why() -> None:
    failed = AddressState().after_failure("Connection refused")
    assert failed.is_settled
    assert failed.trouble == "no connection: Connection refused"


def test_the_least_bad_is_who_still_answers_then_who_is_connected() -> None:
    states = [
        UP,
        UP.after_health_report(serving=False),
        UP.after_probe(answered=False),
        UP.after_loss(),
    ]
    assert [each.badness for each in states] == [0, 1, 2, 3]


STEPS: dict[str, Callable[[AddressState], AddressState]] = {
    "connected": AddressState.after_connecting,
    "lost": AddressState.after_loss,
    "unreached": lambda state: state.after_failure("why"),
    "up": lambda state: state.after_health_report(serving=True),
    "down": lambda state: state.after_health_report(serving=False),
    "alive": lambda state: state.after_probe(answered=True),
    "silent": lambda state: state.after_probe(answered=False),
}


@given(steps=st.lists(st.sampled_from(sorted(STEPS))))
def test_an_address_is_available_exactly_where_it_has_no_trouble(steps: list[str]) -> None:
    state = AddressState()
    for step in steps:
        state = STEPS[step](state)
        assert state.is_available == (not state.trouble) == (state.badness == 0)
