"""What is concluded from a request once its copies are back: evidence, examples, what is told."""

import random
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import inference_pb2 as oip
from coalmine_router.observer.compare_answers import AnswerComparer
from coalmine_router.observer.comparison.job import ComparisonJob, JobResults, results_of
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.evidence_intake import EvidenceIntake
from coalmine_router.observer.observed_request import (
    Copy,
    CopyCall,
    ObservedRequest,
    PairResult,
    PendingEvidence,
    Role,
)
from coalmine_router.observer.route_settings import settings_of
from coalmine_router.observer.warned import WarningCounts
from tests.doubles.clock import HandClock
from tests.doubles.oip_backend import request_body, response_body
from tests.doubles.reports import UNUSED, report, router_config, settings

REQUEST = request_body("digits", pixels=np.zeros((1, 4), np.float32))
STABLE, STABLE_AGAIN = 0.0, 0.125
CANARY = 0.5


def answer(off: float, version: str = "1") -> bytes:
    logits = np.array([[0.1, 0.7, 0.2]], np.float32) + np.float32(off)
    return response_body(version=version, logits=logits)


# A copy: what for, to whom, and what came back.
Copied = tuple[Role, str, bytes | ComparedAnswer]


class AnswerComparisonRig:
    """Compares answers of the route `digits` here; without `keeps_up` it leaves all out."""

    def __init__(self, **route: Any) -> None:
        config = router_config(route=route, stable=UNUSED, canary=UNUSED, int8=UNUSED)
        self.route = config.table().route("digits")
        self.examples: list[pb.Mismatch] = []
        self.jobs: list[ComparisonJob] = []
        self.keeps_up = True
        self.trials, self.warned = Trials(), WarningCounts()
        routes = {name: settings_of(each) for name, each in settings(config).items()}
        self.clock = clock = HandClock()
        self.evidence = EvidenceIntake(self.trials, Tally(), routes, clock)
        self.comparer = AnswerComparer(
            compares=self,
            evidence=self.evidence,
            examples=self,
            warned=self.warned,
            routes=routes,
            clock=clock,
            rng=random.Random(1),
        )

    async def compare(self, job: ComparisonJob) -> JobResults | None:
        self.jobs.append(job)
        return results_of(job) if self.keeps_up else None

    def offer(self, record: pb.Mismatch) -> None:
        self.examples.append(record)

    async def concluded(
        self, body: bytes, *calls: Copied, segment: str = "", **fields: Any
    ) -> list[PairResult]:
        """Conclude and learn from a request that was answered with `body`, and from its copies."""
        made = observed_request(body, *calls, **fields)
        made.route, made.segment = self.route, segment
        await self.comparer.compare(made)
        assert self.evidence.add_comparisons(made) == []
        return made.results

    async def noted(self, *calls: Copied, **fields: Any) -> list[PendingEvidence]:
        """Return what is to be learnt from a request that stable answered, and its copies."""
        made = observed_request(answer(STABLE), *calls, **fields)
        made.route = self.route
        await self.comparer.compare(made)
        return made.pending

    def trial(self, candidate: str = "canary") -> Trial:
        (found,) = [
            each for each in self.trials.current_trials() if each.pair.candidate == candidate
        ]
        return found


def observed_request(body: bytes, *calls: Copied, **fields: Any) -> ObservedRequest:
    made = ObservedRequest(report(**fields), REQUEST, body, 0)
    for number, (role, variant, answered) in enumerate(calls):
        copied, span_id = Copy(role, variant), number.to_bytes(8, "big")
        came = answered if isinstance(answered, ComparedAnswer) else ComparedAnswer(answered)
        made.calls.append(CopyCall(copied, "b", "b:1", span_id, 1, 1, came))
    return made


def values(body: bytes) -> float:
    raw = oip.ModelInferResponse.FromString(body).raw_output_contents[0]
    return round(float(np.frombuffer(raw, np.float32)[0]) - 0.1, 3)


# ---------------------------------------------------------------- audits


AUDITS: list[tuple[str, tuple[bytes, bytes]]] = [
    ("canary", (answer(STABLE, "1"), answer(CANARY, "2"))),
    ("stable", (answer(CANARY, "2"), answer(STABLE, "1"))),
]


@pytest.mark.parametrize(("copied_to", "answers"), AUDITS)
async def test_of_an_audit_stable_is_the_reference_whichever_side_the_caller_got(
    copied_to: str, answers: tuple[bytes, bytes]
) -> None:
    rig = AnswerComparisonRig()
    answered = "stable" if copied_to == "canary" else "canary"
    (found,) = await rig.concluded(answers[0], ("audit", copied_to, answers[1]), variant=answered)
    assert (found.reference, found.candidate) == ("stable", "canary")
    assert (found.reference_version, found.candidate_version) == ("1", "2")
    (element,) = found.comparison.differences[0].worst[:1]
    assert (element.expected[:3], element.actual[:3]) == ("0.7", "1.2")

    (record,) = rig.examples
    assert (record.reference, record.candidate, record.role) == ("stable", "canary", "audit")
    assert (record.reference_version, record.candidate_version) == ("1", "2")
    assert values(record.reference_response) == STABLE
    assert values(record.candidate_response) == CANARY

    addresses = {answered: "127.0.0.1:8001", copied_to: "b:1"}
    assert (found.reference_address, record.reference_address) == (addresses["stable"],) * 2
    assert (found.candidate_address, record.candidate_address) == (addresses["canary"],) * 2

    key = rig.trial().key
    assert (key.reference_version, key.candidate_version) == ("1", "2")
    assert rig.trial().evidence.outcomes == {"mismatch": 1}


async def test_both_ways_of_an_audit_add_up_in_one_trial() -> None:
    rig = AnswerComparisonRig()
    for copied_to, (given, copied) in AUDITS:
        answered = "stable" if copied_to == "canary" else "canary"
        await rig.concluded(given, ("audit", copied_to, copied), variant=answered)
    assert (rig.trial().number, rig.trial().evidence.shares.requests) == (1, 2)


# ---------------------------------------------------------------- noise


NOISE: Copied = ("noise", "stable", answer(STABLE_AGAIN))
SHADOW: Copied = ("shadow", "canary", answer(CANARY))


async def test_noise_alone_is_told_and_is_no_evidence_and_no_example() -> None:
    rig = AnswerComparisonRig(noise=100)
    (found,) = await rig.concluded(answer(STABLE), NOISE)
    assert (found.role, found.comparison.outcome) == ("noise", "mismatch")
    assert (rig.examples, list(rig.trials.current_trials())) == ([], [])


async def test_noise_goes_beside_what_is_compared_with_the_same_answer_of_stable() -> None:
    rig = AnswerComparisonRig(noise=100)
    for _ in range(2):  # the second ends the moment of the first
        await rig.concluded(answer(STABLE), SHADOW, NOISE, ("audit", "int8", answer(STABLE)))
        rig.clock.now_ns += 10**9
    for candidate, beyond in (("canary", "same"), ("int8", "better")):
        evidence = rig.trial(candidate).evidence
        assert (evidence.noise_pairs, evidence.moments) == (2, 1)
        assert getattr(evidence.outputs["logits"].beyond_noise, beyond) == 1
    assert {each.candidate for each in rig.examples} == {"canary"}


async def test_noise_is_not_beside_a_pair_of_which_stable_is_no_side() -> None:
    rig = AnswerComparisonRig(noise=100)
    await rig.concluded(answer(CANARY), ("shadow", "int8", answer(STABLE)), variant="canary")
    assert rig.trial("int8").evidence.noise_pairs == 0


# ---------------------------------------------------------------- what is to be learnt


async def test_what_was_found_is_no_evidence_before_its_turn() -> None:
    rig = AnswerComparisonRig()
    (pending,) = await rig.noted(SHADOW)
    assert pending.trial is rig.trial()
    assert (pending.result.trial, pending.result.comparison.outcome) == (1, "mismatch")
    assert rig.trial().evidence == Evidence()
    assert [each.trial for each in rig.examples] == [1], "it is kept at once"


async def test_below_full_a_lesson_is_of_what_was_found() -> None:
    rig = AnswerComparisonRig(kept={"capture": "none"})
    (pending,) = await rig.noted(SHADOW)
    assert pending.result.comparison.differences[0].worst[0].expected == "0.7"


@pytest.mark.parametrize(
    ("code", "failed"),
    [
        ("OK", False),
        ("INTERNAL", True),
        ("INVALID_ARGUMENT", True),
        ("UNAVAILABLE", None),
        ("DEADLINE_EXCEEDED", None),
        ("RESOURCE_EXHAUSTED", None),
    ],
)
async def test_of_what_the_reference_answered_only_the_models_own_failures_are_charged(
    code: str, failed: bool | None
) -> None:
    came = ComparedAnswer(answer(STABLE) if code == "OK" else b"", code)
    (pending,) = await AnswerComparisonRig().noted(("shadow", "canary", came))
    assert (pending.failed, pending.reference_failed) == (failed, None)
    (pending,) = await AnswerComparisonRig(noise=100).noted(
        ("noise", "stable", came), ("shadow", "canary", answer(STABLE))
    )
    assert (pending.failed, pending.reference_failed) == (False, failed)


@pytest.mark.parametrize("code", ["OK", "INTERNAL", "INVALID_ARGUMENT"])
async def test_where_the_reference_failed_nobody_knows_whether_the_candidate_would_have(
    code: str,
) -> None:
    (pending,) = await AnswerComparisonRig().noted(
        ("shadow", "canary", ComparedAnswer(b"", code)), status_code=3
    )
    assert pending.failed is None


async def test_of_what_the_canary_answered_itself_a_copy_says_nothing_of_its_failures() -> None:
    audit: Copied = ("audit", "stable", answer(STABLE))
    (pending,) = await AnswerComparisonRig().noted(audit, variant="canary")
    assert (pending.result.comparison.outcome, pending.failed) == ("match", None)


# ---------------------------------------------------------------- examples, and what is told


async def test_a_match_is_no_example_and_a_mismatch_is_one() -> None:
    rig = AnswerComparisonRig()
    await rig.concluded(answer(STABLE), ("shadow", "canary", answer(STABLE)))
    assert rig.examples == []
    await rig.concluded(answer(STABLE), SHADOW)
    (record,) = rig.examples
    assert (record.request, record.trial) == (REQUEST, 1)


async def test_of_two_candidates_each_has_an_id_and_a_span_of_its_own() -> None:
    rig = AnswerComparisonRig()
    found = await rig.concluded(answer(STABLE), SHADOW, ("shadow", "int8", answer(CANARY)))
    assert len({each.span_id for each in found}) == len({each.id for each in rig.examples}) == 2


@pytest.mark.parametrize("capture", ["shapes", "none"])
async def test_below_full_no_value_is_told_and_none_is_kept(capture: str) -> None:
    rig = AnswerComparisonRig(kept={"capture": capture})
    (found,) = await rig.concluded(answer(STABLE), SHADOW)
    (element,) = found.comparison.differences[0].worst[:1]
    assert (element.expected, element.actual) == ("", "")
    (record,) = rig.examples
    assert (record.request, record.reference_response) == (b"", b"")
    assert rig.trial().evidence.outcomes == {"mismatch": 1}, "it is compared all the same"


async def test_the_segment_stands_on_evidence_and_on_the_example() -> None:
    rig = AnswerComparisonRig(segment={"metadata": "x-tenant"})
    await rig.concluded(answer(STABLE), SHADOW, segment="acme")
    assert rig.examples[0].segment == "acme"
    assert rig.trial().evidence.segments["acme"].outcomes == {"mismatch": 1}


# ---------------------------------------------------------------- what can't be learnt from


async def test_what_was_left_out_leaves_nothing_behind() -> None:
    rig = AnswerComparisonRig()
    rig.keeps_up = False
    assert await rig.concluded(answer(STABLE), SHADOW) == []
    assert (rig.examples, list(rig.trials.current_trials())) == ([], [])


@pytest.mark.parametrize("answered", ["gone", ""])
async def test_an_answer_of_a_variant_that_the_table_no_longer_has_is_no_evidence(
    answered: str,
) -> None:
    rig = AnswerComparisonRig()
    (found,) = await rig.concluded(answer(STABLE), SHADOW, variant=answered)
    assert (found.comparison.outcome, found.trial) == ("mismatch", 0)
    assert (rig.examples, list(rig.trials.current_trials())) == ([], [])


async def test_a_rule_for_an_output_that_is_not_there_is_warned_of_once_and_counted() -> None:
    rig = AnswerComparisonRig(compare={"outputs": {"logitz": {"rule": "exact"}}})
    with capture_logs() as logs:
        for _ in range(3):
            await rig.concluded(answer(STABLE), SHADOW)
    assert [(each["warning"], each["output"]) for each in logs] == [("unknown_output", "logitz")]
    assert rig.warned.totals() == {("digits", "unknown_output"): 3}


async def test_answers_of_another_service_are_compared_as_messages() -> None:
    rig = AnswerComparisonRig()
    (found,) = await rig.concluded(b"\xff\x01", ("shadow", "canary", b"\xff\x02"), method="a.B/C")
    assert not rig.jobs[0].is_inference
    assert (found.comparison.kind, found.comparison.outputs[0].output) == ("value", "message")
