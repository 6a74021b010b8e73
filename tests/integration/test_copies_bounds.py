"""Copies that are given up, each with its reason; and that no queue is in another's way."""

import asyncio
import time

import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.observer.copies.copy_limits import CopyLimits
from coalmine_router.observer.copies.reach import MOMENT_NS
from coalmine_router.observer.observed_request import Copy
from tests.doubles.clock import HandClock
from tests.doubles.copying import Copying, copied_config, copying
from tests.doubles.digit_reports import LOGITS, REQUEST, RESPONSE, shadowed
from tests.doubles.oip_backend import (
    Answer,
    OipBackend,
    Seen,
    answering,
    hanging,
)
from tests.doubles.reports import UNUSED, report
from tests.doubles.split_route import closed_port
from tests.doubles.waiting import eventually

BOTH = ["canary", "int8"]
SECOND_NS = 10**9


async def test_a_shadow_that_hangs_holds_up_no_other_and_is_bounded() -> None:
    limits = CopyLimits(queue_copies_max=3)
    two = {"shadows": {"canary": {"share": "100%", "concurrency": 2}, "int8": "100%"}}
    async with OipBackend(hanging()) as hung, OipBackend(answering(logits=LOGITS)) as well:
        config = copied_config(stable=UNUSED, canary=hung.address, int8=well.address, route=two)
        async with copying(config, limits=limits) as rig:
            # A copy is taken from its queue as soon as a worker runs, so the calls come first.
            rig.offer(*(shadowed(*BOTH) for _ in range(2)))
            await hung.wait_seen(2)
            for _ in range(10):
                rig.offer(shadowed(*BOTH))
                await eventually(lambda: rig.totals("int8").sent == rig.totals("int8").offered)
            assert len(hung.seen) == 2
            rig.check()
            assert (rig.totals().waiting, rig.totals().under_way) == (3, 2)
    assert (rig.totals("int8").offered, rig.totals("int8").answered) == (12, 12)
    assert rig.totals().sent == 0
    assert rig.dropped() == {"queue_full": 7, "stopping": 5}


async def test_a_model_that_hangs_holds_up_no_other_on_its_own_backend() -> None:
    """Also where a connection has room for fewer calls than hang."""
    few = [("grpc.max_concurrent_streams", 4), ("grpc.http.overload_protection", 0)]

    def script(seen: Seen) -> Answer:
        hangs = seen.infer.model_name == "digits-next"
        return Answer(until=asyncio.Event()) if hangs else Answer(RESPONSE)

    async with OipBackend(script, options=few) as backend:
        config = copied_config(stable=UNUSED, canary=backend.address, int8=backend.address)
        async with copying(config) as rig:
            rig.offer(*(shadowed("canary") for _ in range(32)))
            await backend.wait_seen(32)
            rig.offer(*(shadowed("int8") for _ in range(100)))
            await rig.ended(100)
            assert (rig.totals("int8").answered, rig.totals().under_way) == (100, 32)


async def test_a_copy_that_waited_too_long_is_given_up_unsent() -> None:
    clock, until = HandClock(), asyncio.Event()
    one = {"shadows": {"canary": {"share": "100%", "concurrency": 1}}}
    async with OipBackend(lambda _: Answer(RESPONSE, until=until)) as shadow:
        config = copied_config(stable=UNUSED, canary=shadow.address, route=one)
        async with copying(config, clock=clock) as rig:
            rig.offer(shadowed(), shadowed())
            await shadow.wait_seen(1)
            clock.now_ns += 31 * SECOND_NS
            until.set()
            await rig.ended(2)
        assert len(shadow.seen) == 1
    assert rig.dropped() == {"expired": 1}


async def test_a_hung_shadow_is_given_up_at_its_deadline() -> None:
    async with OipBackend(hanging()) as hung:
        config = copied_config(stable=UNUSED, canary=hung.address, route={"timeout": "50ms"})
        async with copying(config) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
    assert (rig.codes, rig.totals().timed_out) == (["DEADLINE_EXCEEDED"], 1)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (report(shadows=["canary"], uncopied="too_large"), "too_large"),
        (report(shadows=["canary"], uncopied="primary_failed", status_code=14), "primary_failed"),
        (report(REQUEST, shadows=["canary"], status_code=14), "primary_failed"),
        (report(REQUEST, RESPONSE, shadows=["gone"]), "unknown_variant"),
        (report(REQUEST, RESPONSE, shadows=["canary"], route="gone"), "unknown_variant"),
        (report(REQUEST, RESPONSE, shadows=["canary"], method="a.B/C"), "not_comparable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_copy_that_can_not_be_made_is_counted_with_its_reason(
    sent: pb.Report, reason: str
) -> None:
    async with OipBackend() as shadow:
        again = pb.Report()
        again.CopyFrom(sent)  # an observed request empties the report it is made from
        async with copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig:
            rig.offer(again)
        assert shadow.seen == []
    assert [dict(totals.dropped) for _, totals in rig.copies.totals()] == [{reason: 1}]
    assert [copy for _, copy in rig.given_up] == [Copy("shadow", sent.shadows[0])]


async def test_a_callers_mistake_is_copied_so_that_both_can_be_seen_to_refuse() -> None:
    async with (
        OipBackend(answering(logits=LOGITS)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        rig.offer(report(REQUEST, shadows=["canary"], status_code=3))
        await rig.ended(1)
    assert rig.codes == ["OK"]


async def test_calls_over_the_rate_are_dropped_and_counted() -> None:
    slow = {"shadows": {"canary": {"share": "100%", "max_rps": 10}}}
    clock = HandClock()
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = copied_config(stable=UNUSED, canary=shadow.address, route=slow)
        async with copying(config, clock=clock) as rig:
            for number in range(1, 101):
                rig.offer(shadowed())
                await rig.ended(number)
                clock.now_ns += SECOND_NS // 50
        assert len(shadow.seen) == 20
    assert rig.dropped() == {"max_rps": 80}


async def test_a_dead_shadow_is_not_called_and_gets_copies_when_it_is_back() -> None:
    clock, address = HandClock(), closed_port()
    config = copied_config(stable=UNUSED, canary=address)
    async with copying(config, clock=clock) as rig:
        clock.now_ns += MOMENT_NS
        rig.offer(*(shadowed() for _ in range(50)))
        await rig.ended(50)
        assert rig.dropped() == {"no_address": 50}
        assert rig.totals().circuit == "closed"
        async with OipBackend(answering(logits=LOGITS), address=address):
            await rig.backends.wait_until(
                lambda: rig.backends.endpoints("digits", "canary").is_ready, 10
            )
            rig.offer(shadowed())
            await rig.ended(51)
            assert rig.codes == ["OK"]


async def test_who_has_just_lost_its_last_address_is_waited_for() -> None:
    address = closed_port()
    config = copied_config(stable=UNUSED, canary=address)
    async with copying(config, clock=HandClock()) as rig:
        rig.offer(*(shadowed() for _ in range(100)))
        await eventually(lambda: rig.totals().under_way == 32)
        async with OipBackend(answering(logits=LOGITS), address=address):
            await rig.ended(100)
    assert rig.codes == ["OK"] * 100


async def test_who_is_not_back_in_a_moment_is_not_waited_for_any_longer() -> None:
    config = copied_config(stable=UNUSED, canary=closed_port())
    async with copying(config) as rig:
        began = time.monotonic()
        rig.offer(*(shadowed() for _ in range(100)))
        await rig.ended(100)
        took_s = time.monotonic() - began
    assert rig.dropped() == {"no_address": 100}
    assert took_s < 2 * MOMENT_NS / SECOND_NS


async def test_an_open_circuit_lets_go_of_what_waits_until_it_is_tried_again() -> None:
    rules = EjectionRules(failures=2, first_ns=SECOND_NS // 2)
    two = {"shadows": {"canary": {"share": "100%", "concurrency": 2, "timeout": "50ms"}}}
    async with OipBackend(hanging()) as hung:
        config = copied_config(stable=UNUSED, canary=hung.address, route=two)
        async with copying(config, rules=rules) as rig:
            rig.offer(*(shadowed() for _ in range(100)))
            await rig.ended(100)
            assert rig.totals().circuit == "open"
            assert set(rig.dropped()) == {"circuit_open"}
            assert len(rig.answered) <= 3
            hung.script = answering(logits=LOGITS)
            await rig.backends.wait_until(
                lambda: rig.backends.endpoints("digits", "canary").is_ready, 10
            )
            rig.offer(shadowed())
            await rig.ended(101)
            assert (rig.codes[-1], rig.totals().circuit) == ("OK", "closed")


async def test_memory_is_bounded_over_all_queues_and_shared_bodies_count_once() -> None:
    size = len(REQUEST + RESPONSE)
    async with OipBackend(hanging()) as hung:
        config = copied_config(stable=UNUSED, canary=hung.address, int8=hung.address, shares=BOTH)
        async with copying(config, limits=CopyLimits(room_bytes_max=3 * size)) as rig:
            rig.offer(*(shadowed(*BOTH) for _ in range(5)))
            assert (rig.dropped(), rig.dropped("int8")) == ({"no_room": 2}, {"no_room": 2})
            assert rig.copies._room.bytes == 3 * size
    assert rig.copies._room.bytes == 0


async def test_an_answer_that_can_not_wait_for_a_slower_copy_is_let_go_and_says_so() -> None:
    size = len(REQUEST + RESPONSE)
    large = answering(logits=np.zeros(10_000, np.float32))
    async with OipBackend(hanging()) as hung, OipBackend(large) as well:
        config = copied_config(stable=UNUSED, canary=hung.address, int8=well.address, shares=BOTH)
        async with copying(config, limits=CopyLimits(room_bytes_max=2 * size)) as rig:
            rig.offer(shadowed(*BOTH))
            await rig.ended(1)
            assert rig.codes == ["RESOURCE_EXHAUSTED"]
            rig.offer(shadowed("int8"))
            await rig.ended(2)
            assert rig.codes == ["RESOURCE_EXHAUSTED", "OK"]


async def test_queues_that_the_table_no_longer_draws_for_are_let_go_once_idle() -> None:
    until = asyncio.Event()
    async with OipBackend(lambda _: Answer(RESPONSE, until=until)) as shadow:
        config = copied_config(stable=UNUSED, canary=shadow.address)
        async with copying(config) as rig:
            rig.offer(shadowed())
            await shadow.wait_seen(1)
            rig.copies.use_table(
                rig.table.replacing(rig.table.route("digits").with_shadow("canary", 0))
            )
            assert len(rig.copies._queues) == 1
            until.set()
            await eventually(lambda: not rig.copies._callers)
            assert not rig.copies._queues
            rig.offer(shadowed())
            await rig.ended(2)
    assert (rig.codes, rig.totals().answered) == (["OK", "OK"], 2)


async def test_a_request_that_nobody_waits_for_any_more_does_no_harm_to_the_next() -> None:
    async with (
        OipBackend(answering(logits=LOGITS)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        rig.offer(shadowed(), shadowed("gone"), shadowed())
        (first, gone, last) = (each.ended for each in rig.sent)
        assert first is not None
        assert gone is None
        assert last is not None
        first.cancel()
        await last
        await rig.ended(3)
        assert (len(rig.answered), len(rig.given_up)) == (2, 1)


async def test_what_is_awaited_is_done_once_the_last_copy_has_come_to_its_end() -> None:
    released = asyncio.Event()
    async with (
        OipBackend(lambda _: Answer(RESPONSE, until=released)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        rig.offer(shadowed())
        await shadow.wait_seen(1)
        (sent,) = rig.sent
        assert sent.ended is not None
        assert not sent.ended.done()
        released.set()
        await asyncio.wait_for(sent.ended, 10)
        assert len(rig.answered) == 1


async def test_before_it_runs_and_after_it_has_stopped_copies_are_given_up() -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        async with copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig:
            kept: Copying = rig
        kept.offer(shadowed())
        assert kept.sent[0].ended is None
        kept.check()
        assert shadow.seen == []
    assert kept.dropped() == {"stopping": 1}
