"""What the soak makes of the calls that failed during a fault."""

import json
from typing import Any

import pytest

from tests.soak.tally import Failure, Kill, Outcome, Soaked, Tally, grown, percentile

LOST, KEPT = 3, 5
KILL = Kill(100.0, frozenset({LOST}))


def failure(
    began_s: float = 99.9,
    ended_s: float = 100.01,
    code: str = "UNAVAILABLE",
    channel: int = LOST,
    origin: str = "",
) -> Failure:
    return Failure(code, "socket closed", began_s, ended_s, channel, origin)


def outcome(*failures: Failure, requests: int = 50, in_flight: int = 4, **fields: Any) -> Outcome:
    tally = Tally(requests, failures, in_flight, 1.0, 2.0, {"stable": requests})
    return Outcome("a fault", tally, **fields)


def test_no_failure_is_good() -> None:
    assert outcome().is_good
    assert outcome(kill=KILL).is_good


def test_a_failure_is_not_excused_where_nothing_was_killed() -> None:
    seen = outcome(failure())
    assert not seen.is_good
    assert seen.what_failed == "1 x UNAVAILABLE socket closed"


def test_calls_in_flight_on_a_connection_to_the_killed_process_are_excused() -> None:
    seen = outcome(failure(), failure(began_s=100.05, ended_s=100.06), kill=KILL)
    assert seen.excused == 2
    assert seen.is_good


@pytest.mark.parametrize(
    "not_excused",
    [
        failure(began_s=100.5, ended_s=100.6),  # it began when everybody knew
        failure(began_s=99.0, ended_s=99.9),  # it was over before
        failure(code="DEADLINE_EXCEEDED", ended_s=102.0),  # nobody was told
        failure(code="WRONG_NUMBERS"),
        failure(channel=KEPT),  # it was on another process
        failure(origin="router"),  # a living router says so
    ],
)
def test_other_failures_are_not(not_excused: Failure) -> None:
    seen = outcome(failure(), not_excused, kill=KILL)
    assert seen.excused == 1
    assert not seen.is_good


def test_where_no_connection_broke_no_call_may_fail() -> None:
    seen = outcome(failure(), kill=Kill(100.0, frozenset()))
    assert seen.excused == 0
    assert not seen.is_good


def test_what_is_expected_names_the_calls_and_the_connections() -> None:
    assert outcome().expected == "0"
    assert outcome(in_flight=4, kill=KILL).expected == "of the 4 on its 1 connections"


def test_a_fault_without_a_call_shows_nothing() -> None:
    seen = outcome(requests=0)
    assert not seen.is_good
    assert seen.what_failed == "no requests"


def test_what_was_not_well_afterwards_is_not_good() -> None:
    seen = outcome(trouble="not well after 60 s: canary: away")
    assert not seen.is_good
    assert "canary: away" in seen.what_failed


def test_a_kill_travels_as_json() -> None:
    assert Kill.of(json.loads(json.dumps(KILL.said()))) == KILL


@pytest.mark.parametrize(
    ("before_mib", "after_mib", "is_grown"),
    [
        (100.0, 145.0, False),
        (100.0, 145.1, True),
        (10.0, 32.5, False),  # a small process may grow by more than a quarter
        (100.0, 60.0, False),
        (100.0, 0.0, True),  # nothing is known of it
        (0.0, 50.0, True),
    ],
)
def test_memory_may_grow_by_a_quarter_and_a_little(
    before_mib: float, after_mib: float, is_grown: bool
) -> None:
    assert grown({"control": before_mib}, {"control": after_mib}) == ["control"] * is_grown


def test_a_soak_is_not_good_where_a_process_grew() -> None:
    before = {"control": 90.0, "proxies": 170.0}
    assert Soaked([outcome()], before, before).is_good
    seen = Soaked([outcome()], before, {"control": 90.0, "proxies": 400.0})
    assert seen.grown == ["proxies"]
    assert not seen.is_good


def test_a_soak_is_not_good_where_one_fault_is_not() -> None:
    assert not Soaked([outcome(), outcome(failure())], {}, {}).is_good


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
