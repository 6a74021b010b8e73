"""What the soak makes of the calls that failed during a fault."""

from typing import Any

import pytest

from tests.soak.tally import Failure, Outcome, Tally, percentile

KILLED_S = 100.0


def failure(began_s: float = 99.9, ended_s: float = 100.01, code: str = "UNAVAILABLE") -> Failure:
    return Failure(code, "socket closed", began_s, ended_s)


def outcome(*failures: Failure, requests: int = 50, in_flight: int = 4, **fields: Any) -> Outcome:
    tally = Tally(requests, failures, in_flight, 1.0, 2.0, {"stable": requests})
    return Outcome("a fault", tally, **fields)


def test_no_failure_is_good() -> None:
    assert outcome().is_good
    assert outcome(killed_s=KILLED_S).is_good


def test_a_failure_is_not_excused_where_nothing_was_killed() -> None:
    seen = outcome(failure())
    assert not seen.is_good
    assert seen.what_failed == "1 x UNAVAILABLE socket closed"


def test_calls_in_flight_on_the_killed_process_are_excused() -> None:
    seen = outcome(failure(), failure(began_s=100.05, ended_s=100.06), killed_s=KILLED_S)
    assert seen.excused == 2
    assert seen.is_good


@pytest.mark.parametrize(
    "not_excused",
    [
        failure(began_s=100.5, ended_s=100.6),  # it began when everybody knew
        failure(began_s=99.0, ended_s=99.9),  # it was over before
        failure(code="DEADLINE_EXCEEDED", ended_s=102.0),  # nobody was told
        failure(code="WRONG_NUMBERS"),
    ],
)
def test_other_failures_are_not(not_excused: Failure) -> None:
    seen = outcome(failure(), not_excused, killed_s=KILLED_S)
    assert seen.excused == 1
    assert not seen.is_good


def test_no_more_are_excused_than_were_in_flight() -> None:
    seen = outcome(failure(), failure(), failure(), in_flight=2, killed_s=KILLED_S)
    assert seen.excused == 2
    assert not seen.is_good


def test_a_fault_without_a_call_shows_nothing() -> None:
    seen = outcome(requests=0)
    assert not seen.is_good
    assert seen.what_failed == "no requests"


def test_what_was_not_well_afterwards_is_not_good() -> None:
    seen = outcome(trouble="not well after 60 s: canary: away")
    assert not seen.is_good
    assert "canary: away" in seen.what_failed


def test_a_tally_travels_as_json() -> None:
    tally = outcome(failure()).tally
    assert Tally.of(tally.said()) == Tally(50, [failure()], 4, 1.0, 2.0, {"stable": 50})


@pytest.mark.parametrize(
    ("numbers", "percent", "expected"),
    [([], 50, 0.0), ([7.0], 99, 7.0), ([1.0, 2.0, 3.0, 4.0], 50, 3.0), ([1.0, 2.0], 100, 2.0)],
)
def test_a_percentile_is_one_of_the_numbers(
    numbers: list[float], percent: int, expected: float
) -> None:
    assert percentile(numbers, percent) == expected
