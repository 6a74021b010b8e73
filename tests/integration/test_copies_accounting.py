"""Four shadows at once, of which one hangs, one is killed, one is slow and one is well."""

import asyncio
from dataclasses import replace

from coalmine_router.config.file import RouterConfig
from coalmine_router.observer.copies.copy_limits import CopyLimits
from tests.doubles.backend_process import BackendProcess, backend_process
from tests.doubles.copying import Copying, copied_config, copying
from tests.doubles.digit_reports import LOGITS, REQUEST, RESPONSE
from tests.doubles.observed_requests import pair_result
from tests.doubles.oip_backend import (
    Answer,
    OipBackend,
    answering,
    hanging,
)
from tests.doubles.reports import UNUSED, report
from tests.doubles.waiting import eventually

SHADOWS = ("canary", "dying", "slow", "well")
LIMITS = CopyLimits(queue_copies_max=16)
REQUESTS = 400


def four(**addresses: str) -> RouterConfig:
    shares = {name: {"share": "100%", "concurrency": 4, "timeout": "200ms"} for name in SHADOWS}
    return copied_config(stable=UNUSED, route={"shadows": shares}, **addresses)


async def offered(rig: Copying, dying: BackendProcess) -> None:
    """Offer all requests, kill a shadow on the way, and look at the counts at every step."""
    for number in range(REQUESTS):
        rig.offer(report(REQUEST, RESPONSE, shadows=SHADOWS))
        rig.check()
        if number == REQUESTS // 4:
            await eventually(lambda: rig.totals("dying").answered > 0)
            dying.process.kill()
        if rig.answered and number % 3 == 0:
            observed, call = rig.answered[number % len(rig.answered)]
            rig.copies.count_compared(replace(observed, calls=[call], results=[pair_result()]))
        await asyncio.sleep(0.001)
        rig.check()


async def test_every_copy_of_every_shadow_is_accounted_for_at_every_step() -> None:
    slow = Answer(RESPONSE, delay_s=0.02)
    with backend_process() as dying:
        async with (
            OipBackend(hanging()) as hung,
            OipBackend(lambda _: slow) as late,
            OipBackend(answering(logits=LOGITS)) as well,
        ):
            config = four(
                canary=hung.address,
                dying=dying.address,
                slow=late.address,
                well=well.address,
            )
            async with copying(config, limits=LIMITS) as rig:
                await offered(rig, dying)
                await rig.all_ended()
                rig.check()
                totals = {name: rig.totals(name) for name in SHADOWS}
                for each in totals.values():
                    assert (each.offered, each.waiting, each.under_way) == (REQUESTS, 0, 0)
    assert totals["canary"].timed_out > 0
    assert totals["canary"].answered == 0
    assert totals["dying"].answered > 0
    assert totals["dying"].failed > 0
    assert totals["dying"].dropped["no_address"] > 0
    assert totals["slow"].dropped["queue_full"] > 0
    assert totals["well"].answered > REQUESTS / 2
    assert len(rig.answered) + len(rig.given_up) == REQUESTS * len(SHADOWS)
    told = [(id(observed), call.copy) for observed, call in rig.answered]
    told += [(id(observed), copy) for observed, copy in rig.given_up]
    assert len(set(told)) == len(told)
