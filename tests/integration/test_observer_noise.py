"""What a candidate fails is held against what stable itself fails, asked twice; all by script."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.digit_reports import LOGITS, REQUEST
from tests.doubles.observing import Observing, observing
from tests.doubles.oip_backend import Answer, OipBackend, Seen, response_body
from tests.doubles.reports import report, router_config

BATCH = 40
# Of requests that come together, one moment is counted: 20 ms of this machine's own time.
MOMENTS = 25


def failing(rate: float, seed: int) -> Callable[[Seen], Answer]:
    """Return answers that match, but for a share that fails at random."""
    chance, response = random.Random(seed), response_body(version="1", logits=LOGITS)

    def script(_: Seen) -> Answer:
        if chance.random() < rate:
            return Answer(code=grpc.StatusCode.INTERNAL, message="out of luck")
        return Answer(response)

    return script


async def sent_until(rig: Observing, ended: Callable[[pb.ComparisonCounts], bool]) -> pb.Verdict:
    """Send batch after batch, each with noise, until the counts say that it is enough."""
    async with asyncio.timeout(60):
        for batch in range(1, 1_000):
            response = response_body(version="1", logits=LOGITS)
            made = [report(REQUEST, response, shadows=["canary"], noise=True) for _ in range(BATCH)]
            await rig.send(*made)
            await rig.settled(2 * BATCH * batch)
            await rig.plane.wait_until_idle()
            (counts,) = rig.status().comparisons
            if ended(counts):
                break
    return counts.verdict


def is_enough(counts: pb.ComparisonCounts) -> bool:
    """Return whether it failed, or has had every chance to."""
    moments = max((each.beyond_noise.requests for each in counts.outputs), default=0)
    return counts.verdict.verdict == "fail" or (moments >= MOMENTS and counts.match >= 200)


@pytest.mark.parametrize(("canary", "word"), [(0.3, "inconclusive"), (0.9, "fail")])
async def test_a_canary_is_charged_with_what_it_fails_more_often_than_stable_does(
    tmp_path: Path, canary: float, word: str
) -> None:
    """Stable fails three of ten second calls: more than the 1 % that is allowed without noise."""
    async with OipBackend(failing(0.3, 1)) as stable, OipBackend(failing(canary, 2)) as shadow:
        config = router_config(stable=stable.address, canary=shadow.address, route={"noise": 100})
        async with observing(config, tmp_path) as rig:
            found = await sent_until(rig, is_enough)
    assert found.verdict == word
    (errors,) = [each for each in found.gates if each.gate == "errors"]
    assert "more often than the reference itself; allowed 1 % more" in errors.reason
