import asyncio

import pytest

from coalmine.clock import SystemClock
from coalmine_server.batching.timers import Alarm, LoopTimer
from tests.doubles.server_parts import MS, FakeTime


@pytest.mark.parametrize("ahead_ns", [-MS, 0, MS // 2, 3 * MS + 1])
async def test_the_loops_timer_never_goes_off_early(ahead_ns: int) -> None:
    clock = SystemClock()
    when_ns = clock.monotonic_ns() + ahead_ns
    gone_off_ns: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    LoopTimer(clock).call_at(when_ns, lambda: gone_off_ns.set_result(clock.monotonic_ns()))
    assert await asyncio.wait_for(gone_off_ns, 5) >= when_ns


async def test_a_timer_of_the_loop_that_is_called_off_does_not_go_off() -> None:
    clock, order, gone_off = SystemClock(), list[str](), asyncio.Event()
    now_ns = clock.monotonic_ns()
    LoopTimer(clock).call_at(now_ns + MS, lambda: order.append("called off")).cancel()
    LoopTimer(clock).call_at(now_ns + 2 * MS, gone_off.set)  # behind it
    await asyncio.wait_for(gone_off.wait(), 5)
    assert order == []


class Rung:
    """An alarm, and when it rang."""

    def __init__(self) -> None:
        self.time = FakeTime(0)
        self.at_ms: list[int] = []
        self.alarm = Alarm(self.time, lambda: self.at_ms.append(self.time.now_ns // MS))

    def ring_by(self, *whens_ms: int) -> None:
        for when_ms in whens_ms:
            self.alarm.ring_by(when_ms * MS)


@pytest.mark.parametrize("asked_ms", [(5, 9), (9, 5), (5, 5)])
def test_an_alarm_rings_once_at_the_soonest_moment(asked_ms: tuple[int, int]) -> None:
    rung = Rung()
    rung.ring_by(*asked_ms)
    rung.time.advance(20 * MS)
    assert rung.at_ms == [5]


def test_an_alarm_that_rang_can_be_asked_again() -> None:
    rung = Rung()
    rung.ring_by(5)
    rung.time.advance(6 * MS)
    rung.ring_by(9)
    rung.time.advance(6 * MS)
    assert rung.at_ms == [5, 9]


def test_an_alarm_that_is_off_does_not_ring() -> None:
    rung = Rung()
    rung.alarm.turn_off()
    rung.ring_by(5)
    rung.alarm.turn_off()
    rung.time.advance(9 * MS)
    assert rung.at_ms == []
