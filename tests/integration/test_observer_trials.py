"""A verdict over its whole way: found, kept over restarts, and begun anew with another version."""

from pathlib import Path
from typing import Any

import numpy as np

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.digit_reports import LOGITS, REQUEST
from tests.doubles.observing import Observing, observing
from tests.doubles.oip_backend import Answer, OipBackend, response_body
from tests.doubles.reports import UNUSED, report, router_config
from tests.doubles.waiting import eventually

PAIR = {"route": "digits", "reference": "stable", "candidate": "canary"}
BATCH = 60


class Candidate:
    """A backend whose answers are off by `off`, of the version that a test sets."""

    def __init__(self) -> None:
        self.version, self.off = "2", 0.5

    def answer(self, _seen: Any) -> Answer:
        logits = LOGITS + np.float32(self.off)
        return Answer(response_body(version=self.version, logits=logits))


def reports(*, version: str = "1") -> list[pb.Report]:
    response = response_body(version=version, logits=LOGITS)
    return [report(REQUEST, response, shadows=["canary"]) for _ in range(BATCH)]


async def send(rig: Observing, *, version: str = "1") -> pb.RouteStatus:
    """Send a batch of reports; return the status once all of them are compared."""
    before = rig.compared()
    await rig.send(*reports(version=version))
    await eventually(lambda: rig.compared() >= before + BATCH)
    await rig.plane.wait_until_idle()
    return rig.status()


async def test_a_verdict_outlives_a_restart_and_ends_with_the_version_that_it_is_on(
    tmp_path: Path,
) -> None:
    candidate = Candidate()
    async with OipBackend(candidate.answer) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path) as rig:
            failed = await send(rig)
            assert rig.metric("verdict", **PAIR) == -1
            assert rig.metric("mismatch_ratio", **PAIR) == 1
        assert failed.verdict == "fail"
        async with observing(config, tmp_path) as rig:
            await eventually(lambda: rig.status().comparisons[0] == failed.comparisons[0])
            assert rig.metric("comparisons_total", **PAIR, outcome="mismatch") is None

            candidate.version, candidate.off = "3", 0.0
            mended = await send(rig)
            listed = await rig.plane.queries.trials("digits", "", 0)
            assert rig.metric("verdict", **PAIR) == 0
            assert rig.metric("trial", **PAIR) == 2
    assert mended.verdict == "inconclusive"
    (now,) = mended.comparisons
    assert (now.match, now.mismatch, now.trial.why) == (BATCH, 0, "candidate version")
    assert [each.verdict.verdict for each in listed] == ["inconclusive", "fail"]
    assert [each.trial.candidate_version for each in listed] == ["3", "2"]


async def test_after_a_rollback_the_route_has_the_verdict_that_it_had(tmp_path: Path) -> None:
    candidate = Candidate()
    async with OipBackend(candidate.answer) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path) as rig:
            await send(rig)
            candidate.version, candidate.off = "3", 0.0
            assert (await send(rig)).verdict == "inconclusive"
            candidate.version, candidate.off = "2", 0.5
            status = await send(rig)
    assert status.verdict == "fail"
    assert status.comparisons[0].trial.number == 1
    assert status.comparisons[0].mismatch == 2 * BATCH


async def test_other_rules_begin_a_trial_as_the_process_starts_with_them(tmp_path: Path) -> None:
    """A verdict by the rules of before would be told for as long as no traffic comes."""
    candidate = Candidate()
    async with OipBackend(candidate.answer) as shadow:
        strict = router_config(stable=UNUSED, canary=shadow.address)
        mild = {"compare": {"default": {"rule": "close", "atol": 1.0}}}
        async with observing(strict, tmp_path) as rig:
            await send(rig)
        relaxed = router_config(stable=UNUSED, canary=shadow.address, route=mild)
        async with observing(relaxed, tmp_path) as rig:
            at_once = rig.status()
            status = await send(rig)
        async with observing(strict, tmp_path) as rig:
            assert rig.status().verdict == "fail", "by its own rules it stays what it was"
    assert at_once.verdict == "inconclusive"
    assert at_once.comparisons[0].trial.number == 2
    assert status.verdict == "inconclusive"
    assert status.comparisons[0].trial.why == "rules"
    assert status.comparisons[0].match == BATCH


async def test_a_variant_that_is_gone_is_no_longer_judged_and_stays_in_history(
    tmp_path: Path,
) -> None:
    candidate = Candidate()
    async with OipBackend(candidate.answer) as shadow:
        both = router_config(stable=UNUSED, canary=UNUSED, int8=shadow.address)
        response = response_body(version="1", logits=LOGITS)
        async with observing(both, tmp_path) as rig:
            sent = [report(REQUEST, response, shadows=["int8"]) for _ in range(BATCH)]
            await rig.send(*sent)
            await rig.settled(BATCH)
            await rig.plane.wait_until_idle()
            assert rig.status().verdict == "fail"
        without = router_config(stable=UNUSED, canary=UNUSED)
        async with observing(without, tmp_path) as rig:
            assert rig.status().verdict == ""
            (ended,) = await rig.plane.queries.trials("digits", "int8", 0)
    assert (ended.trial.ended_ns > 0, ended.verdict.verdict) == (True, "fail")
