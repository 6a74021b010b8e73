"""When calls are made, and when a variant that can't be reached is left alone."""

from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.observer.copies.circuit import Circuit, CircuitRules

SECOND_NS = 10**9
RULES = CircuitRules(failures=3)


def begun(circuit: Circuit, now_ns: int) -> int:
    era = circuit.begin(now_ns)
    assert era is not None
    return era


def opened(now_ns: int = 0) -> Circuit:
    """Return a circuit that opened just now."""
    circuit = Circuit(RULES)
    for _ in range(RULES.failures):
        circuit.missed(begun(circuit, now_ns), now_ns)
    assert circuit.state == "open"
    return circuit


def test_failures_that_are_not_in_a_row_leave_it_closed() -> None:
    circuit = Circuit(RULES)
    for _ in range(20):
        circuit.missed(begun(circuit, 0), 0)
        circuit.missed(begun(circuit, 0), 0)
        circuit.reached(begun(circuit, 0))
    assert circuit.state == "closed"


def test_open_it_refuses_for_a_second_then_lets_a_single_call_through() -> None:
    circuit = opened()
    assert circuit.begin(SECOND_NS - 1) is None
    begun(circuit, SECOND_NS)
    assert circuit.state == "half_open"
    assert circuit.begin(SECOND_NS) is None
    assert circuit.begin(100 * SECOND_NS) is None


def test_the_call_that_is_tried_closes_it_when_it_is_answered() -> None:
    circuit = opened()
    circuit.reached(begun(circuit, SECOND_NS))
    assert circuit.state == "closed"
    circuit.missed(begun(circuit, SECOND_NS), SECOND_NS)
    assert circuit.state == "closed"


def test_each_try_that_fails_doubles_the_wait_up_to_half_a_minute() -> None:
    circuit, now_ns, waits = opened(), 0, []
    for _ in range(8):
        wait_s = next(each for each in range(1, 60) if not circuit.refuses(now_ns + each * 10**9))
        waits.append(wait_s)
        now_ns += wait_s * SECOND_NS
        circuit.missed(begun(circuit, now_ns), now_ns)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_once_closed_the_next_wait_is_short_again() -> None:
    circuit = opened()
    circuit.missed(begun(circuit, SECOND_NS), SECOND_NS)
    circuit.reached(begun(circuit, 3 * SECOND_NS))
    for _ in range(RULES.failures):
        circuit.missed(begun(circuit, 3 * SECOND_NS), 3 * SECOND_NS)
    assert circuit.refuses(4 * SECOND_NS - 1)
    assert not circuit.refuses(4 * SECOND_NS)


def test_calls_from_before_it_opened_neither_close_it_nor_lengthen_the_wait() -> None:
    circuit = Circuit(RULES)
    eras = [begun(circuit, 0) for _ in range(RULES.failures + 4)]
    for era in eras[:-2]:
        circuit.missed(era, 0)
    circuit.reached(eras[-2])
    assert circuit.refuses(SECOND_NS - 1)
    assert not circuit.refuses(SECOND_NS)
    begun(circuit, SECOND_NS)
    circuit.reached(eras[-1])
    assert circuit.refuses(SECOND_NS)


def test_a_try_that_never_left_makes_room_for_another_at_once() -> None:
    circuit = opened()
    circuit.left(begun(circuit, SECOND_NS))
    assert circuit.begin(SECOND_NS) is not None


@given(st.lists(st.tuples(st.sampled_from(("reached", "missed", "left")), st.integers(0, 5))))
def test_whatever_happens_a_call_can_begin_again_within_half_a_minute(
    ends: list[tuple[str, int]],
) -> None:
    circuit, now_ns = Circuit(RULES), 0
    for end, later_s in ends:
        now_ns += later_s * SECOND_NS
        era = circuit.begin(now_ns)
        if era is None:
            continue
        assert circuit.state != "open"
        if end == "missed":
            circuit.missed(era, now_ns)
        else:
            getattr(circuit, end)(era)
        assert circuit.state != "half_open"
    assert not circuit.refuses(now_ns + 30 * SECOND_NS)
