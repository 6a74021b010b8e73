"""What becomes evidence, of whom, and when that changes a verdict."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.result import Comparison
from coalmine_router.observer.evidence.address_evidence import AsksReady, none_known
from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.evidence.verdict import VerdictChange
from coalmine_router.observer.evidence_intake import EvidenceIntake, segment_of
from coalmine_router.observer.observed_request import ObservedRequest, PairResult, PendingEvidence
from coalmine_router.observer.route_settings import settings_of
from tests.doubles.clock import HandClock
from tests.doubles.observed_requests import (
    MATCH,
    copy_call,
    failed,
    mismatch,
    observed_request,
    pair_result,
)
from tests.doubles.reports import STARTED_NS, UNUSED, report, router_config, settings

SPLIT = {"stable": 9_000, "canary": 1_000}
EVEN = {"stable": 5_000, "canary": 5_000}
INVALID_ARGUMENT, INTERNAL = 3, 13
S = 10**9


class EvidenceIntakeRig:
    """The evidence intake of the route `digits`, and what it has taken in."""

    def __init__(self, ready: AsksReady = none_known, **route: Any) -> None:
        config = router_config(route=route, stable=UNUSED, canary=UNUSED, int8=UNUSED)
        self.route = config.table().route("digits")
        self.trials = Trials()
        self.tally = Tally()
        routes = {name: settings_of(each) for name, each in settings(config).items()}
        self.clock = HandClock(STARTED_NS)
        self.evidence = EvidenceIntake(self.trials, self.tally, routes, self.clock, ready)

    def compared(
        self, what: PairResult, *failed: bool | None, of: ObservedRequest | None = None
    ) -> list[VerdictChange]:
        """Learn from a comparison; `failed`: who did, the candidate and the reference."""
        made = of or observed_request(what)
        made.pending.append(PendingEvidence(what, self.trial_of(what), *failed))
        return self.evidence.add_comparisons(made)

    def compared_later(self, what: PairResult, *failed: bool | None) -> list[VerdictChange]:
        """Learn from a comparison of another moment than those before."""
        self.clock.now_ns += 10**9
        return self.compared(replace(what, started_ns=self.clock.now_ns), *failed)

    def assigned(self, *reports: pb.Report, every_ns: int = 0) -> list[VerdictChange]:
        changes = []
        for each in reports:
            self.clock.now_ns += every_ns
            changes += self.evidence.add_assignment(each, self.route)
        return changes

    def later(self) -> list[VerdictChange]:
        """Report one more request of stable's, when all before it have ended."""
        self.clock.now_ns += 300 * 10**9
        return self.assigned(split("stable"))

    def trial_of(self, what: PairResult) -> Trial:
        """Return the trial that a comparison belongs to, which may begin with it."""
        versions = what.reference_version, what.candidate_version
        return self.evidence.open_trial(self.route, (what.reference, what.candidate), versions)

    @property
    def trial(self) -> Trial:
        (only,) = self.trials.current_trials()
        return only


def split(variant: str, weights: dict[str, int] | None = None, **fields: Any) -> pb.Report:
    made = report(variant=variant, **fields)
    made.attempts[0].variant = variant
    made.split_bp.update(weights or SPLIT)
    return made


def traffic(
    requests: int, *, share: float = 0.1, canary: float = 0.0, stable: float = 0.0, code: int = 0
) -> Iterator[pb.Report]:
    """Return requests of which the canary gets a share; so many of each side's end with `code`.

    Without `code` those are slow instead. The weights say 10 %.
    """
    rng = random.Random(11)
    for _ in range(requests):
        name, rate = ("canary", canary) if rng.random() < share else ("stable", stable)
        is_odd = rng.random() < rate
        made = split(name, status_code=code if is_odd else 0)
        if is_odd and not code:
            made.attempts[0].duration_ns = 900_000_000
        yield made


# ---------------------------------------------------------------- comparisons


def test_a_comparison_adds_up_in_the_trial_of_its_pair() -> None:
    rig = EvidenceIntakeRig()
    assert rig.compared(pair_result(mismatch())) == []
    rig.compared(pair_result(MATCH))
    assert rig.trial.pair == ("digits", "stable", "canary")
    assert rig.trial.evidence.outcomes == {"mismatch": 1, "match": 1}
    assert (rig.trial.key.reference_version, rig.trial.key.candidate_version) == ("1", "2")


def test_a_copy_that_comes_back_unanswered_counts_against_a_pass_alone() -> None:
    rig = EvidenceIntakeRig()
    rig.compared(pair_result(MATCH))
    rig.compared(pair_result(failed()))
    windows = rig.trial.evidence.windows
    assert (windows.windows, windows.unanswered) == (2, 1)
    assert windows.bets.above.wealth.observed == 1
    assert "; 1 of 2 copies were not answered" in rig.trial.verdict.gate("mismatch").reason


def test_requests_of_a_window_that_goes_on_are_told_and_decide_nothing() -> None:
    rig = EvidenceIntakeRig(gates={"per": "1s"})
    for _ in range(30):
        assert rig.compared(pair_result(mismatch())) == []
    verdict = rig.trial.verdict
    assert verdict.verdict == "inconclusive"
    assert verdict.reason == (
        "100 % of 30 requests mismatch, allowed 1 %; at least 50 requests must be compared"
    )


def test_a_pass_waits_until_comparisons_have_gone_on_for_long_enough() -> None:
    rig = EvidenceIntakeRig(gates={"per": "1s", "min_duration": "10m", "error_rate": False})
    for _ in range(500):
        rig.compared_later(pair_result(MATCH))
    assert rig.trial.verdict.verdict == "inconclusive"
    assert rig.trial.verdict.reason == (
        "0 % of 500 requests mismatch, allowed 1 %; comparisons go on for 499s of 10m"
    )
    changes = [each for _ in range(120) for each in rig.compared_later(pair_result(MATCH))]
    assert [each.verdict.verdict for each in changes] == ["pass"]


def test_another_version_of_the_candidate_begins_another_trial() -> None:
    rig = EvidenceIntakeRig()
    rig.compared(pair_result(mismatch()))
    rig.compared(pair_result(MATCH, candidate_version="3"))
    assert (rig.trial.number, rig.trial.why) == (2, "candidate version")
    assert rig.trial.evidence.outcomes == {"match": 1}
    (whole,) = (tally for _, tally in rig.tally.pairs())
    assert whole.outcomes == {"mismatch": 1, "match": 1}, "counters outlive trials"


def test_an_exchange_whose_turn_comes_after_its_trial_ended_counts_for_that_one() -> None:
    rig = EvidenceIntakeRig()
    late = observed_request(what := pair_result(mismatch()))
    first = rig.trial_of(what)
    late.pending.append(PendingEvidence(what, first))
    rig.compared(pair_result(MATCH, candidate_version="3"))
    rig.trials.take_changed()
    assert rig.evidence.add_comparisons(late) == []
    assert (first.number, first.evidence.outcomes) == (1, {"mismatch": 1})
    assert rig.trial.evidence.outcomes == {"match": 1}
    assert rig.trials.take_changed() == [first], "it is for the disk again"


def test_noise_stands_beside_the_comparison_that_it_belongs_to() -> None:
    rig = EvidenceIntakeRig(noise=1)
    rig.compared(pair_result(mismatch(), noise=mismatch()))
    rig.compared(pair_result(mismatch()))
    evidence = rig.trial.evidence
    assert (evidence.noise_pairs, evidence.shares.requests, evidence.moments) == (1, 2, 0)
    rig.compared_later(pair_result(mismatch(), noise=MATCH))
    assert (evidence.noise_pairs, evidence.moments) == (2, 1)
    assert evidence.outputs["logits"].beyond_noise == Differences(same=1.0)
    rig.compared_later(pair_result(MATCH, noise=MATCH))
    assert evidence.outputs["logits"].beyond_noise == Differences(1.0, 1.0)


def test_requests_of_one_moment_count_by_their_mean_and_the_open_one_not_yet() -> None:
    rig = EvidenceIntakeRig(noise=1)
    for _ in range(3):
        rig.compared(pair_result(mismatch(), noise=MATCH), True, False)
    rig.compared(pair_result(MATCH, noise=MATCH), False, False)
    evidence = rig.trial.evidence
    assert (evidence.moments, evidence.failed_more) == (0, Differences())
    rig.compared_later(pair_result(MATCH, noise=MATCH), False, True)
    assert (evidence.moments, evidence.failed_more) == (1, Differences(0.75, 0.25))
    assert evidence.outputs["logits"].beyond_noise == Differences(0.75, 0.25)


def test_a_slow_copy_makes_the_moment_longer() -> None:
    rig = EvidenceIntakeRig(noise=1)
    slow = observed_request(
        what := pair_result(mismatch(), noise=MATCH), calls=[copy_call(duration_ns=10**9)]
    )
    rig.compared(what, of=slow)
    for _ in range(2):
        rig.compared_later(pair_result(mismatch(), noise=MATCH))
    assert rig.trial.evidence.moments == 0
    for _ in range(3):
        rig.compared_later(pair_result(mismatch(), noise=MATCH))
    assert rig.trial.evidence.moments == 1


FAILED = Comparison("error", "status")


@pytest.mark.parametrize(
    ("failed", "charged", "beyond_noise"),
    [
        ((), (0, 0), Differences()),
        ((None, True), (0, 0), Differences()),
        ((True,), (2, 2), Differences()),
        ((False, None), (2, 0), Differences()),
        ((True, False), (2, 2), Differences(worse=1.0)),
        ((True, True), (2, 2), Differences(same=1.0)),
        ((False, True), (2, 0), Differences(better=1.0)),
    ],
)
def test_failures_count_where_both_are_known_also_beside_the_references_own(
    failed: tuple[bool | None, ...], charged: tuple[int, int], beyond_noise: Differences
) -> None:
    rig = EvidenceIntakeRig(noise=1)
    for _ in range(2):  # what of the second moment is known ends the first
        rig.compared_later(pair_result(FAILED), *failed)
    evidence = rig.trial.evidence
    assert (evidence.failures.requests, evidence.failures.mismatch) == charged
    assert evidence.failed_more == beyond_noise


def test_the_request_that_tips_a_verdict_is_told_with_its_spans() -> None:
    rig = EvidenceIntakeRig()
    changes = []
    for _ in range(30):
        what = pair_result(mismatch())
        of = observed_request(what)
        changes += [(change, what, of) for change in rig.compared(what, of=of)]
    ((change, what, of),) = changes
    assert (change.before.verdict, change.verdict.verdict) == ("inconclusive", "fail")
    assert (change.trace_id, change.span_id) == (of.report.trace_id, what.span_id)
    assert change.figures.mismatch == 10, "nothing is decided before ten requests"


# ---------------------------------------------------------------- the split


def test_a_request_of_the_split_is_an_event_of_the_trial_though_nothing_was_compared() -> None:
    rig = EvidenceIntakeRig(gates={"slow": {"over": "500ms"}})
    slow = split("canary")
    slow.attempts[0].duration_ns = 600_000_000
    rig.assigned(split("stable"), slow, split("canary", status_code=INTERNAL))
    rig.later()
    evidence = rig.trial.evidence
    assert evidence.assigned.by_weights == {(1_000, 9_000): [4, 2]}
    for events in (evidence.slow, evidence.errors):
        assert (events.total, events.of_candidate, events.expected) == (1, 1, 0.1)
    assert rig.trial.key.candidate_version == "", "such events don't tell versions"


@pytest.mark.parametrize("why", [pb.ASSIGNMENT_PINNED, pb.ASSIGNMENT_STICKY])
def test_pinned_and_sticky_traffic_leaves_the_split_empty(
    why: "pb.Assignment.ValueType",
) -> None:
    rig = EvidenceIntakeRig(gates={"slow": {"over": "1ms"}})
    rig.assigned(*(split("canary", status_code=INTERNAL, assignment=why) for _ in range(200)))
    assert list(rig.trials.current_trials()) == []


def test_a_variant_that_the_table_no_longer_has_is_not_judged() -> None:
    rig = EvidenceIntakeRig()
    rig.assigned(split("gone", {"stable": 9_000, "gone": 1_000}))
    assert list(rig.trials.current_trials()) == []


def test_events_and_comparisons_add_up_in_one_trial() -> None:
    rig = EvidenceIntakeRig()
    rig.assigned(split("stable"))
    rig.compared(pair_result(MATCH))
    rig.assigned(split("canary"))
    rig.later()
    assert rig.trial.number == 1
    assert (rig.trial.evidence.assigned.total, rig.trial.evidence.shares.requests) == (3, 1)


def test_a_canary_that_fails_twice_as_often_fails_by_its_errors() -> None:
    rig = EvidenceIntakeRig()
    twice = traffic(6_000, canary=0.6, stable=0.3, code=INTERNAL)
    (change,) = rig.assigned(*twice, every_ns=S // 2)
    assert change.verdict.verdict == "fail"
    assert [each.gate for each in change.verdict.gates if each.finding == "fail"] == ["errors"]
    assert "errors were the candidate's" in change.verdict.reason


def test_a_canary_that_is_slow_twice_as_often_fails_by_that() -> None:
    rig = EvidenceIntakeRig(gates={"slow": {"over": "500ms"}})
    (change,) = rig.assigned(*traffic(6_000, canary=0.6, stable=0.3), every_ns=S // 2)
    assert [each.gate for each in change.verdict.gates if each.finding == "fail"] == ["slow"]
    assert "slow requests were the candidate's" in change.verdict.reason


def test_errors_and_slowness_that_both_sides_share_change_no_verdict() -> None:
    rig = EvidenceIntakeRig(gates={"slow": {"over": "500ms"}})
    alike = traffic(4_000, canary=0.3, stable=0.3, code=INTERNAL)
    assert rig.assigned(*alike, every_ns=S // 2) == []
    assert rig.assigned(*traffic(4_000, canary=0.3, stable=0.3), every_ns=S // 2) == []


def test_a_canary_that_refuses_its_whole_share_fails_though_callers_make_mistakes_too() -> None:
    rig = EvidenceIntakeRig()
    refusing = traffic(6_000, canary=1.0, stable=0.05, code=INVALID_ARGUMENT)
    (change,) = rig.assigned(*refusing, every_ns=S // 10)
    assert "refusals were the candidate's" in change.verdict.reason


def test_a_spell_that_is_over_is_judged_by_the_next_request_however_well_it_went() -> None:
    rig = EvidenceIntakeRig()
    for _ in range(5):
        rig.assigned(split("canary", status_code=INTERNAL))
        rig.clock.now_ns += 60 * S
        rig.assigned(split("stable"))
    assert rig.trial.verdict.verdict == "fail"


def test_a_split_that_is_not_what_was_configured_raises_the_alarm_and_fails_nobody() -> None:
    rig = EvidenceIntakeRig()
    changes = rig.assigned(*traffic(6_000, share=0.2)) + rig.later()
    assert changes == [], "inconclusive it was before"
    verdict = rig.trial.verdict
    assert (verdict.verdict, verdict.gate("split").finding) == ("inconclusive", "alarm")
    assert "the router does not split as configured" in verdict.reason


def test_a_split_that_is_kept_to_the_request_raises_none() -> None:
    rig = EvidenceIntakeRig()
    rig.assigned(*(split("canary" if n % 10 == 3 else "stable") for n in range(6_000)))
    rig.later()
    assert rig.trial.verdict.gate("split").finding == "open"
    assert rig.trial.verdict.gate("split").observed == 6_001


def test_the_split_is_looked_at_once_those_that_began_together_have_ended() -> None:
    rig = EvidenceIntakeRig()
    rig.assigned(*(split("stable", EVEN) for _ in range(200)))
    assert not rig.trial.verdict.gates
    rig.later()
    assert rig.trial.verdict.gate("split").finding == "alarm"


def test_a_stream_lasts_as_long_as_its_caller_likes_and_says_nothing_of_the_split() -> None:
    rig = EvidenceIntakeRig()
    rig.assigned(split("canary", method="inference.GRPCInferenceService/ModelStreamInfer"))
    rig.later()
    assert rig.trial.evidence.assigned.by_weights == {(1_000, 9_000): [1, 0]}


# ---------------------------------------------------------------- segments


def tenant(value: bytes) -> pb.Report:
    return report(metadata=[("x-other", b"no"), ("x-tenant", value), ("x-tenant", b"second")])


@pytest.mark.parametrize(
    ("made", "segment"),
    [
        (tenant(b"acme"), "acme"),
        (tenant(b""), "(none)"),
        (report(), "(none)"),
        (tenant(b"\xff\xfe"), "��"),
        (tenant(b"x" * 500), "x" * 128),
    ],
)
def test_a_segment_is_the_first_value_of_the_key(made: pb.Report, segment: str) -> None:
    assert segment_of(made, "x-tenant") == segment


def test_a_route_without_segments_has_none() -> None:
    assert segment_of(tenant(b"acme"), "") is None


def test_the_fiftieth_tenant_and_those_after_it_are_counted_together() -> None:
    rig = EvidenceIntakeRig(segment={"metadata": "x-tenant"})
    for n in range(60):
        of = observed_request(what := pair_result(MATCH))
        of.segment = f"tenant-{n}"
        rig.compared(what, of=of)
    segments = rig.trial.evidence.segments
    assert len(segments) == 50
    assert (segments["tenant-48"].shares.requests, segments["(other)"].shares.requests) == (1, 11)


# ---------------------------------------------------------------- addresses


def test_a_comparison_counts_at_the_addresses_of_both_sides() -> None:
    rig = EvidenceIntakeRig()
    rig.compared(pair_result(mismatch()))
    rig.compared(pair_result(MATCH, candidate_address="10.0.0.8:8001"))
    evidence = rig.trial.evidence
    reference, candidate = evidence.reference_addresses, evidence.candidate_addresses
    assert {name: each.compared for name, each in reference.by_name.items()} == {"10.0.0.1:8001": 2}
    assert {name: (each.compared, each.mismatch) for name, each in candidate.by_name.items()} == {
        "10.0.0.7:8001": (1, 1),
        "10.0.0.8:8001": (1, 0),
    }


def test_a_failure_that_is_charged_counts_at_its_address_and_no_other_does() -> None:
    rig = EvidenceIntakeRig()
    rig.compared(pair_result(failed("INTERNAL")), True)
    rig.compared(pair_result(failed("UNAVAILABLE"), candidate_address="10.0.0.8:8001"), None)
    (name, own), *others = rig.trial.evidence.candidate_addresses.by_name.items()
    assert (name, own.compared, own.failed, own.mismatch) == ("10.0.0.7:8001", 1, 1, 0)
    assert not others, "who answered nothing was not compared"


def test_no_pass_is_given_while_a_ready_address_of_the_candidate_is_unseen() -> None:
    ready = {"canary": ["10.0.0.7:8001", "10.0.0.8:8001"], "stable": ["10.0.0.1:8001", "never:1"]}
    rig = EvidenceIntakeRig(lambda route, variant: ready[variant] if route == "digits" else ())
    for _ in range(500):
        assert rig.compared(pair_result(MATCH), False) == []
    assert rig.trial.verdict.reason == (
        "not decided yet: 1 of 2 ready addresses not compared within 10m of traffic: 10.0.0.8:8001"
    )
    (change,) = rig.compared(pair_result(MATCH, candidate_address="10.0.0.8:8001"), False)
    assert change.verdict.verdict == "pass"
