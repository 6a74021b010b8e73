"""Whether each ready address was compared, and whether the addresses agree."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from coalmine_router.observer.comparison.result import Comparison
from coalmine_router.observer.evidence.address_evidence import ReadyAddresses
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.gates.addresses_gate import addresses_gate
from coalmine_router.observer.evidence.gates.all_gates import verdict_after
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import NO_VERDICT, Gate, Verdict
from tests.doubles.evidence import a_comparison, add_request

A, B, C = "10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001"
PODS = (A, B, C)
READY = ReadyAddresses(candidate=PODS)
MINUTE = 60 * 10**9
GATES = GateSettings()
UNSEEN = Gate("addresses")

Wrong = Callable[[str], bool]


class AddressesGateRig:
    """Evidence of a candidate with several addresses; a request a second, unless it is said."""

    def __init__(self, seed: int = 1) -> None:
        self.evidence, self.verdict = Evidence(), NO_VERDICT
        self.rng = random.Random(seed)
        self.now_ns = 0

    def compare(
        self, address: str, *, is_wrong: bool = False, reference: str = "10.0.1.1:8001"
    ) -> None:
        self.now_ns += 10**9
        comparison = a_comparison(4 if is_wrong else 0)
        add_request(self.evidence, comparison)
        self.evidence.failures.add(0.0)
        for side, name in (
            (self.evidence.candidate_addresses, address),
            (self.evidence.reference_addresses, reference),
        ):
            side.add(name, comparison.share, at_ns=self.now_ns)

    def traffic(self, requests: int, names: Sequence[str], wrong: Wrong = lambda _: False) -> None:
        for _ in range(requests):
            name = self.rng.choice(names)
            self.compare(name, is_wrong=wrong(name))

    def gate(self, ready: ReadyAddresses = READY, before: Gate = UNSEEN) -> Gate:
        return addresses_gate(self.evidence, ready, GATES, before)

    def judge(
        self, ready: ReadyAddresses = READY, gates: GateSettings = GATES, trace: bytes = b"t"
    ) -> Verdict:
        self.verdict = verdict_after(
            self.evidence, gates, self.verdict, at_ns=self.now_ns, trace_id=trace, ready=ready
        )
        return self.verdict


# ---------------------------------------------------------------- each was compared


def test_a_pass_waits_for_the_address_that_was_not_compared_and_names_it() -> None:
    rig = AddressesGateRig()
    rig.traffic(500, (A, B))
    found = rig.judge()
    assert found.gate("mismatch").finding == found.gate("errors").finding == "pass"
    assert (found.verdict, found.gate("addresses").finding) == ("inconclusive", "open")
    assert found.reason == (
        "not decided yet: 1 of 3 ready addresses not compared within 10m of traffic: 10.0.0.3:8001"
    )
    rig.compare(C)
    passed = rig.judge()
    assert passed.verdict == "pass"
    assert passed.reason.endswith("; all 3 ready addresses were compared")


def test_a_pass_waits_for_a_ready_address_whose_few_answers_were_wrong() -> None:
    rig = AddressesGateRig()
    rig.traffic(500, (A, B))
    assert rig.judge().gate("mismatch").finding == "pass"
    rig.compare(C, is_wrong=True)
    found = rig.judge()
    assert (found.verdict, found.gate("addresses").finding) == ("inconclusive", "open")
    assert found.reason == (
        "not decided yet: too few to say whether its addresses agree: "
        "10.0.0.3:8001 is wrong in 1 of 1 requests"
    )
    rig.traffic(500, (A, B))
    rig.compare(C, is_wrong=True)
    assert rig.judge().verdict == "inconclusive"
    for _ in range(3):
        rig.compare(C)
    assert rig.judge().verdict == "pass"


def test_no_address_is_doubted_where_all_answers_differ_nor_where_it_is_the_only_one() -> None:
    rig = AddressesGateRig()
    rig.traffic(30, PODS, lambda _: True)
    assert rig.gate().finding == "pass"
    alone = AddressesGateRig()
    alone.traffic(30, (A,), lambda _: True)
    assert alone.gate(ReadyAddresses(candidate=(A,))).finding == "pass"


def test_an_address_that_was_wrong_and_left_holds_up_no_pass() -> None:
    rig = AddressesGateRig()
    rig.traffic(1500, (A, B))
    rig.compare(C, is_wrong=True)
    assert rig.judge(ReadyAddresses(candidate=(A, B))).verdict == "pass"


def test_the_same_candidate_passes_where_the_router_knows_no_ready_addresses() -> None:
    rig = AddressesGateRig()
    rig.traffic(500, (A, B))
    found = rig.judge(ReadyAddresses())
    assert (found.verdict, found.gate("addresses").reason) == ("pass", "")


def test_evidence_without_addresses_waits_for_none_that_nobody_knows() -> None:
    evidence = Evidence()
    evidence.add(a_comparison(0))
    assert addresses_gate(evidence, ReadyAddresses(), GATES, UNSEEN).finding == "pass"
    assert addresses_gate(evidence, READY, GATES, UNSEEN).finding == "open"
    assert addresses_gate(Evidence(), ReadyAddresses(), GATES, UNSEEN).finding == "open"


def test_an_address_that_was_compared_too_long_ago_is_waited_for_again() -> None:
    rig = AddressesGateRig()
    rig.traffic(30, PODS)
    assert rig.gate().finding == "pass"
    rig.traffic(601, (A, B))
    found = rig.gate()
    assert found.finding == "open"
    assert found.reason.endswith("within 10m of traffic: 10.0.0.3:8001")


def test_time_without_traffic_makes_no_address_unseen() -> None:
    rig = AddressesGateRig()
    rig.traffic(30, PODS)
    rig.now_ns += 600 * MINUTE
    assert rig.gate().finding == "pass"


def test_an_address_that_left_is_not_waited_for() -> None:
    rig = AddressesGateRig()
    rig.traffic(500, (A, B))
    assert rig.judge(ReadyAddresses(candidate=(A, B))).verdict == "pass"


def test_a_pass_stays_when_an_address_joins_and_the_gate_says_what_is_new() -> None:
    rig = AddressesGateRig()
    rig.traffic(500, PODS)
    assert rig.judge().verdict == "pass"
    rig.traffic(1, PODS)
    found = rig.judge(ReadyAddresses(candidate=(*PODS, "10.0.0.4:8001")))
    assert found.verdict == "pass"
    assert found.gate("addresses").reason.endswith(": 10.0.0.4:8001")


def test_of_many_unseen_addresses_three_are_named() -> None:
    rig = AddressesGateRig()
    rig.compare(A)
    many = tuple(f"10.0.2.{number}:1" for number in range(9))
    assert rig.gate(ReadyAddresses(candidate=(A, *many))).reason == (
        "9 of 10 ready addresses not compared within 10m of traffic: "
        "10.0.2.0:1, 10.0.2.1:1, 10.0.2.2:1 and 6 more"
    )


# ---------------------------------------------------------------- they agree


def test_one_wrong_address_of_three_fails_the_candidate_and_is_named() -> None:
    rig = AddressesGateRig()
    while rig.judge().verdict != "fail":
        rig.traffic(1, PODS, lambda name: name == B)
    failed = rig.verdict
    assert failed.reason.endswith("; all of them at 10.0.0.2:8001, one of 3 addresses")
    for _ in range(100):
        rig.traffic(1, PODS, lambda name: name == B)
        rig.judge(trace=b"later")
    assert rig.verdict.verdict == "fail"
    assert (rig.verdict.at_ns, rig.verdict.trace_id) == (failed.at_ns, failed.trace_id)
    assert rig.verdict.reason.startswith(failed.reason)
    assert "; its addresses disagree: 10.0.0.2:8001 is wrong in " in rig.verdict.reason
    assert rig.verdict.gate("mismatch") == failed.gate("mismatch")


def test_an_address_that_stands_out_is_named_once_and_stays_named_in_a_fail() -> None:
    rig = AddressesGateRig()
    rig.traffic(200, PODS, lambda name: name == B)
    first = rig.judge()
    named = rig.judge()
    rig.traffic(5, PODS, lambda name: name == B)
    assert rig.judge() is named
    assert "its addresses disagree" in first.reason


def test_one_wrong_address_of_two_hundred_holds_a_pass_back_though_the_mean_is_allowed() -> None:
    rig, names = AddressesGateRig(), tuple(f"10.0.3.{number}:1" for number in range(200))
    rig.traffic(8_000, names, lambda name: name == names[7])
    found = rig.judge(ReadyAddresses(candidate=names), replace(GATES, addresses_within_ns=10**15))
    assert found.gate("mismatch").finding == "pass"
    assert (found.verdict, found.gate("addresses").finding) == ("inconclusive", "alarm")
    assert found.reason.startswith("its addresses disagree: 10.0.3.7:1 is wrong in ")


def test_an_alarm_ends_when_the_address_that_stood_out_has_left() -> None:
    rig = AddressesGateRig()
    rig.traffic(60, PODS, lambda name: name == B)
    alarm = rig.gate()
    assert alarm.finding == "alarm"
    assert rig.gate(before=alarm) is alarm
    rig.traffic(1, (A, C))
    assert rig.gate(ReadyAddresses(candidate=(A, C)), alarm).finding == "pass"


def test_an_alarm_does_not_end_as_soon_as_the_evidence_falls_below_what_raised_it() -> None:
    rig = AddressesGateRig()
    while rig.gate().finding != "alarm":
        rig.traffic(1, PODS, lambda name: name == B)
    alarm = rig.gate()
    rig.traffic(300, PODS)
    assert rig.gate().finding == "pass", "alone, it would raise none"
    assert rig.gate(before=alarm).finding == "alarm"


def test_an_address_of_the_reference_that_stands_out_is_named_as_such() -> None:
    rig = AddressesGateRig()
    for _ in range(60):
        reference = rig.rng.choice(PODS)
        rig.compare("10.0.9.1:1", is_wrong=reference == C, reference=reference)
    found = rig.gate(ReadyAddresses(reference=PODS, candidate=("10.0.9.1:1",)))
    assert found.finding == "alarm"
    assert found.reason.startswith("the reference's addresses disagree: 10.0.0.3:8001 is wrong in ")


def test_where_nobody_knows_who_is_ready_those_compared_of_late_are_judged() -> None:
    rig = AddressesGateRig()
    rig.traffic(60, PODS, lambda name: name == B)
    assert rig.gate(ReadyAddresses()).finding == "alarm"
    rig.traffic(601, (A, C))
    assert rig.gate(ReadyAddresses()).finding == "pass"


def test_failures_at_one_address_stand_out_as_mismatches_do() -> None:
    rig = AddressesGateRig()
    for _ in range(80):
        name, rig.now_ns = rig.rng.choice(PODS), rig.now_ns + 1
        rig.evidence.add(Comparison("error", "status") if name == A else a_comparison(0))
        share = float(name == A)
        rig.evidence.candidate_addresses.add(name, share, at_ns=rig.now_ns, has_failed=name == A)
    found = rig.gate()
    assert found.finding == "alarm"
    assert "10.0.0.1:8001 is wrong in " in found.reason


def test_addresses_that_are_all_wrong_agree() -> None:
    rig = AddressesGateRig()
    rig.traffic(300, PODS, lambda _: True)
    assert rig.gate().finding == "pass"
    assert "one of 3 addresses" not in rig.judge().reason


# ---------------------------------------------------------------- simulated


def named(names: Sequence[str], wrong: Callable[[random.Random, str], bool], seed: int) -> int:
    """Return after how many requests an address stands out; 0: after none of 500."""
    rig, gate = AddressesGateRig(seed), UNSEEN
    ready = ReadyAddresses(candidate=names)
    for request in range(1, 501):
        rig.traffic(1, names, lambda name: wrong(rig.rng, name))
        gate = rig.gate(ready, gate)
        if gate.finding == "alarm":
            return request
    return 0


@pytest.mark.parametrize(("count", "rate"), [(3, 0.1), (30, 0.1), (3, 0.5)])
def test_of_addresses_that_are_alike_hardly_ever_one_stands_out(count: int, rate: float) -> None:
    names = [f"10.0.0.{number}:1" for number in range(count)]
    runs = [named(names, lambda rng, _: rng.random() < rate, seed) for seed in range(20)]
    assert sum(map(bool, runs)) <= 1


def test_a_wrong_address_of_three_stands_out_within_some_tens_of_its_requests() -> None:
    runs = sorted(named(PODS, lambda _, name: name == A, seed) for seed in range(40))
    assert runs[0] > 0
    assert runs[len(runs) // 2] <= 60, "all addresses together; a third are its own"
    assert runs[-1] <= 120
