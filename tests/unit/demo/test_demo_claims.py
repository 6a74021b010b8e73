from dataclasses import replace
from typing import Any

import pytest

from coalmine_demo.account import JudgedShare, Phase, TrafficTally
from coalmine_demo.claims import DemoOutcome, all_checks, failed_candidates, true_rate
from tests.doubles.digits import exchange, failed, heldout

MODELS = heldout(stable=(0, 1, 2, 9), canary=(0, 1, 2, 3), int8=(0, 1, 2, 9), broken=(7, 7, 7, 7))
SHADOWED = Phase(1, {"stable": 10_000}, {"canary", "int8", "broken"})
HALF = Phase(2, {"stable": 5_000, "canary": 5_000}, {"int8"})

EXCHANGES = (
    *(exchange("stable", image) for image in (0, 1, 2)),
    exchange("stable", 3, label=9),
    exchange("stable", 0, revision=2),
    exchange("canary", 3, revision=2),
)

# What a demo looks like in which everything came true.
GOOD = DemoOutcome(
    heldout=MODELS,
    phases=(SHADOWED, HALF),
    exchanges=EXCHANGES,
    counted={
        ("stable", "canary"): TrafficTally(4, 1),
        ("stable", "broken"): TrafficTally(4, 4),
        ("stable", "int8"): TrafficTally(50, 1),
        ("canary", "int8"): TrafficTally(1, 1),
    },
    uncompared=0,
    refused={"broken"},
    judged=(
        JudgedShare("broken", "stable", "fail", "100 % of 10 requests mismatch", 10),
        JudgedShare("canary", "stable", "inconclusive", "not decided yet", 4),
        JudgedShare("int8", "stable", "pass", "2 % of 50 requests mismatch", 50),
        JudgedShare("int8", "canary", "inconclusive", "not decided yet", 1),
    ),
    traced=6,
    exit_codes={"router": 0, "server": 0},
)


def _judged(candidate: str, verdict: str, requests: int, reference: str = "stable") -> JudgedShare:
    return JudgedShare(candidate, reference, verdict, "why", requests)


def false_claims(outcome: DemoOutcome) -> list[str]:
    return [check.claim for check in all_checks(outcome) if not check.is_true]


def test_every_claim_is_true_of_a_demo_that_went_well() -> None:
    assert false_claims(GOOD) == []


def test_the_figures_of_a_claim_say_how_much() -> None:
    told = {check.claim: check.figures for check in all_checks(GOOD)}
    assert told["every request was answered while the route changed"] == "6 of 6, over 1 changes"
    assert told["the split stable 50% / canary 50% is exact"] == (
        "stable 1 of 1.0, canary 1 of 1.0"
    )


@pytest.mark.parametrize(
    ("changed", "claim"),
    [
        ({"exchanges": (*EXCHANGES, failed("UNAVAILABLE")), "traced": 7}, "every request was ans"),
        ({"exchanges": (*EXCHANGES, failed("MALFORMED")), "traced": 7}, "every request was ans"),
        (
            {"exchanges": (exchange("stable", 3, label=4), *EXCHANGES[1:])},
            "every answer is what the variant",
        ),
        ({"exchanges": (*EXCHANGES, EXCHANGES[4], EXCHANGES[4])}, "the split stable 50%"),
        ({"refused": set()}, "the broken canary was caught"),
        ({"refused": {"broken", "canary"}}, "the broken canary was caught"),
        (
            {"phases": (replace(SHADOWED, weights_bp={"stable": 9_999, "broken": 1}), HALF)},
            "the broken canary was caught",
        ),
        (
            {"exchanges": (*EXCHANGES, exchange("broken", 0, label=7, revision=0)), "traced": 7},
            "the broken canary was caught",
        ),
        (
            {"counted": {**GOOD.counted, ("stable", "canary"): TrafficTally(4, 0)}},
            "the router counted",
        ),
        (
            {"counted": {**GOOD.counted, ("stable", "canary"): TrafficTally(3, 1)}},
            "the router counted",
        ),
        ({"counted": {}}, "the router counted"),
        (
            {"counted": {**GOOD.counted, ("stable", "int8"): TrafficTally(50, 0)}},
            "int8 answers nearly",
        ),
        (
            {"counted": {**GOOD.counted, ("stable", "int8"): TrafficTally(50, 40)}},
            "int8 answers nearly",
        ),
        ({"judged": (_judged("broken", "inconclusive", 700),)}, "the verdict on the broken"),
        ({"judged": (_judged("broken", "fail", 201),)}, "the verdict on the broken"),
        ({"judged": (_judged("broken", "fail", 9, "canary"),)}, "the verdict on the broken"),
        ({"judged": (_judged("int8", "fail", 90),)}, "no verdict on a candidate"),
        ({"judged": ()}, "no verdict on a candidate"),
        ({"traced": 5}, "every request is one trace"),
        ({"traced": 7}, "every request is one trace"),
        ({"exit_codes": {"router": 0, "server": -9}}, "the processes ended"),
        ({"exit_codes": {}}, "the processes ended"),
    ],
)
def test_what_did_not_come_true_makes_its_claim_false(changed: dict[str, Any], claim: str) -> None:
    found = false_claims(replace(GOOD, **changed))
    assert any(each.startswith(claim) for each in found), found


def test_a_canary_that_reads_worse_than_stable_makes_that_claim_false() -> None:
    worse = replace(MODELS, answers={**MODELS.answers, **heldout(canary=(5, 5, 2, 3)).answers})
    found = false_claims(replace(GOOD, heldout=worse))
    assert "the canary reads the held-out digits at least as well as stable" in found


def test_copies_that_were_given_up_excuse_as_many_comparisons() -> None:
    counted = {**GOOD.counted, ("stable", "broken"): TrafficTally(2, 2)}
    assert false_claims(replace(GOOD, counted=counted, uncompared=2)) == []
    assert len(false_claims(replace(GOOD, counted=counted, uncompared=1))) == 1


def test_without_traffic_nothing_is_true_but_what_local_torch_says() -> None:
    nothing = replace(
        GOOD, exchanges=(), counted={}, refused=set(), judged=(), traced=0, exit_codes={}
    )
    assert [check.claim for check in all_checks(nothing) if check.is_true] == [
        "the canary reads the held-out digits at least as well as stable"
    ]


def test_a_change_of_shadows_begins_no_new_stage() -> None:
    quieter = replace(SHADOWED, revision=2, shadows={"int8"})
    half = replace(HALF, revision=3)
    seen = (exchange("stable"), exchange("stable", revision=2), exchange("canary", revision=3))
    stages = replace(GOOD, phases=(SHADOWED, quieter, half), exchanges=seen).stages
    assert [(dict(each.weights_bp), len(each.exchanges)) for each in stages] == [
        ({"stable": 10_000}, 2),
        ({"stable": 5_000, "canary": 5_000}, 1),
    ]


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        ([_judged("broken", "fail", 10), _judged("canary", "pass", 100)], {"broken"}),
        ([_judged("broken", "inconclusive", 10)], set()),
        ([_judged("int8", "fail", 90, "canary")], set()),
        ([], set()),
    ],
)
def test_a_candidate_is_refused_where_it_failed_against_stable(
    judged: list[JudgedShare], expected: set[str]
) -> None:
    assert failed_candidates(judged) == expected


def test_a_candidate_that_local_torch_finds_beyond_the_limit_may_fail() -> None:
    """The canary reads another digit than stable in a quarter of these images."""
    failed_too = (*GOOD.judged[:1], _judged("canary", "fail", 90), *GOOD.judged[2:])
    assert true_rate(MODELS, "canary") == 0.25
    assert false_claims(replace(GOOD, judged=failed_too)) == []
