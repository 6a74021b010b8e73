from typing import Any

import pytest

from coalmine.clock import Clock
from coalmine_router.backends.address import Address
from coalmine_router.backends.address_state import AddressState
from coalmine_router.backends.backend_access import BackendAccess
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.backends.endpoint_pool import EndpointPool, PoolSurroundings
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.variant_endpoints import VariantEndpoints
from coalmine_router.change_signal import ChangeSignal
from coalmine_router.table import Backend
from tests.doubles.clock import HandClock

SECOND = 10**9
UP = AddressState().after_connecting().after_health_report(serving=True)


class NoClock:
    """Time that nobody may ask for."""

    def wall_ns(self) -> int:
        raise AssertionError("the clock was read")

    monotonic_ns = wall_ns


def no_chance() -> float:
    raise AssertionError("chance was drawn")


def middle() -> float:
    return 0.5  # no jitter


def pool(count: int) -> EndpointPool:
    targets = tuple(f"10.0.0.{n}:80" for n in range(count))
    nothing: Any = None  # it does not run, and nobody calls
    world = PoolSurroundings(
        rng=nothing, resolver=nothing, changes=ChangeSignal(), intervals=Intervals()
    )
    return EndpointPool(BackendAccess(Backend("blue", targets), lambda *_, **__: nothing), world)


def endpoints(
    of: EndpointPool,
    *,
    clock: Clock | None = None,
    chance: Any = middle,
    has_stand_in: bool = False,
) -> VariantEndpoints:
    return VariantEndpoints(
        "digits/stable",
        of,
        clock=clock or HandClock(),
        chance=chance,
        rules=EjectionRules(),
        has_stand_in=has_stand_in,
        on_ejection=lambda: None,
    )


def up(of: EndpointPool) -> list[Address]:
    for address in of.known:
        address.set_state(UP)
    return list(of.known)


def test_with_one_address_no_chance_is_drawn_and_no_clock_is_read() -> None:
    blue = pool(1)
    stable = endpoints(blue, chance=no_chance)
    stable._clock = NoClock()
    assert stable.pick() is None
    [only] = up(blue)
    assert stable.is_ready
    assert stable.pick() is only
    stable.note_answer(only)
    assert stable.pick_other(only) is None


def test_without_any_available_the_least_bad_is_picked_for_who_must_go_somewhere() -> None:
    blue = pool(4)
    stable = endpoints(blue)
    lost, silent, down, busier = blue.known
    silent.set_state(UP.after_probe(answered=False))
    down.set_state(UP.after_health_report(serving=False))
    busier.set_state(UP.after_health_report(serving=False))
    busier.outstanding = 5
    assert stable.pick() is None
    assert stable.pick_any() is down
    down.set_state(AddressState())
    busier.set_state(AddressState())
    assert stable.pick_any() is silent
    silent.set_state(AddressState())
    assert stable.pick_any() in {lost, silent, down}


def test_an_ejected_address_returns_by_the_clock() -> None:
    blue, clock = pool(2), HandClock()
    stable = endpoints(blue, clock=clock)
    bad, good = up(blue)
    for _ in range(5):
        stable.note_failure(bad)
    assert stable.pick() is good
    assert stable.pick_other(good) is None
    assert stable.next_return_ns == 5 * SECOND
    clock.now_ns = 5 * SECOND
    stable.readmit()
    assert stable.address_counts == (2, 2)
    assert stable.next_return_ns is None


async def test_where_others_are_lost_too_an_ejected_address_gets_calls_again() -> None:
    blue = pool(2)
    stable = endpoints(blue)
    bad, good = up(blue)
    for _ in range(5):
        stable.note_failure(bad)
    good.set_state(UP.after_loss())
    assert stable.pick() is bad


async def test_an_address_that_is_lost_anyway_is_not_ejected() -> None:
    blue = pool(4)
    stable = endpoints(blue)
    first = up(blue)[0]
    first.set_state(UP.after_loss())
    for _ in range(9):
        stable.note_failure(first)
    first.set_state(UP)
    assert stable.address_counts == (4, 4)


async def test_an_ejected_address_says_that_it_is_ready_all_the_same() -> None:
    blue = pool(3)
    stable = endpoints(blue)
    on_ejection, lost, unready = up(blue)
    for _ in range(5):
        stable.note_failure(on_ejection)
    lost.set_state(UP.after_loss())
    unready.set_state(UP.after_health_report(serving=False))
    assert stable.ready == (on_ejection,)


def test_endpoints_that_are_gone_hear_no_more() -> None:
    blue = pool(1)
    stable = endpoints(blue)
    stable.retire()
    up(blue)
    assert not stable.is_ready


def test_troubles_are_the_first_few_and_each_is_cut_short() -> None:
    blue = pool(6)
    stable = endpoints(blue)
    for address in blue.known:
        address.set_state(AddressState().after_failure("x" * 500))
    assert len(stable.troubles) == 4
    assert stable.troubles[-1] == "and 3 more"
    assert max(map(len, stable.troubles)) == 300
    assert stable.trouble.startswith("backend 'blue': 10.0.0.0:80: no connection: xxx")


@pytest.mark.parametrize("has_stand_in", [False, True])
def test_a_lone_address_is_out_only_where_another_variant_stands_in(has_stand_in: bool) -> None:
    of = pool(1)
    (only,) = up(of)
    clock = HandClock()
    way = endpoints(of, clock=clock, has_stand_in=has_stand_in)
    for _ in range(5):
        way.note_failure(only)
    assert way.is_ready is not has_stand_in
    clock.now_ns += 5 * SECOND
    way.readmit()
    assert way.is_ready
