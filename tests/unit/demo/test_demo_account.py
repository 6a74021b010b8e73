import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_demo.account import (
    Phase,
    TrafficExchange,
    TrafficTally,
    accuracy,
    agrees,
    expected_tallies,
    misattributed,
    percentile,
    shares_of,
)
from tests.doubles.digits import exchange, failed, heldout

TENTH = {"stable": 9_000, "canary": 1_000}


def split(stable: int, canary: int) -> list[TrafficExchange]:
    return [*[exchange("stable")] * stable, *[exchange("canary")] * canary]


# ---------------------------------------------------------------- shares


def test_a_share_says_what_was_asked_and_what_was_got() -> None:
    stable, canary = shares_of(split(540, 60), TENTH)
    assert (stable.variant, stable.asked, stable.got) == ("stable", 540.0, 540)
    assert (canary.variant, canary.asked, canary.got) == ("canary", 60.0, 60)


@pytest.mark.parametrize(
    ("stable", "canary", "is_exact"),
    [
        (540, 60, True),
        (541, 59, False),
        (539, 61, False),
        (542, 60, True),  # the last block of ten has two requests, and its canary is to come
        (541, 61, True),  # it has come
        (540, 62, False),  # two of one block
        (0, 0, True),
        (0, 1, True),
    ],
)
def test_a_share_is_exact_where_permuted_blocks_allow_it(
    stable: int, canary: int, is_exact: bool
) -> None:
    assert {share.is_exact for share in shares_of(split(stable, canary), TENTH)} == {is_exact}


def test_a_request_nobody_answered_makes_the_shares_inexact() -> None:
    assert not all(
        each.is_exact for each in shares_of([*split(540, 59), failed("INTERNAL")], TENTH)
    )


@given(
    canary_bp=st.integers(1, 9_999),
    total=st.integers(0, 400),
    seed=st.integers(0, 2**32),
)
def test_whatever_permuted_blocks_give_is_exact(canary_bp: int, total: int, seed: int) -> None:
    block = 10_000 // math.gcd(canary_bp, 10_000)
    slots = ["canary"] * (canary_bp * block // 10_000)
    slots += ["stable"] * (block - len(slots))
    chance = random.Random(seed)
    given_out: list[str] = []
    while len(given_out) < total:
        given_out += chance.sample(slots, block)
    weights = {"stable": 10_000 - canary_bp, "canary": canary_bp}
    exchanges = [exchange(variant) for variant in given_out[:total]]
    assert all(share.is_exact for share in shares_of(exchanges, weights))


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 50, 5.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 99, 4.0),
        ([4.0, 1.0, 3.0, 2.0], 0, 1.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
    ],
)
def test_a_percentile_is_a_value_that_was_seen(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 99))


def test_accuracy_leaves_out_what_was_not_answered() -> None:
    labels = np.array([0, 1, 2, 3])
    seen = [exchange("stable", 1), exchange("stable", 2, label=7), failed("UNAVAILABLE")]
    assert accuracy(seen, labels) == 0.5
    assert math.isnan(accuracy([failed("UNAVAILABLE")], labels))


def test_an_answer_agrees_within_the_noise_of_batching() -> None:
    stable = heldout(stable=(0, 1, 2, 3)).answers["stable"]
    near = exchange("stable", 1)
    assert agrees(near, stable)
    off = near.logits + np.float32(5e-4)
    assert agrees(exchange("stable", 1, logits=off), stable)
    assert not agrees(exchange("stable", 1, logits=near.logits + np.float32(5e-3)), stable)
    assert not agrees(exchange("stable", 1, label=2), stable)


def test_an_answer_of_another_variant_than_the_one_it_names_is_a_stranger() -> None:
    models = heldout(stable=(0, 1, 2, 3), canary=(0, 1, 2, 7))
    genuine = [exchange("stable", 3), exchange("canary", 3, label=7), failed("INTERNAL")]
    swapped = exchange("canary", 3, label=3)
    nameless = exchange("", 0)
    assert misattributed([*genuine, swapped, nameless], models) == [swapped, nameless]


# ---------------------------------------------------------------- comparisons


def test_what_the_router_has_to_find_follows_from_who_answered_and_who_got_a_copy() -> None:
    models = heldout(stable=(0, 1, 2, 3), canary=(0, 1, 2, 7), int8=(0, 9, 2, 3))
    phases = [
        Phase(1, {"stable": 10_000}, {"canary", "int8"}),
        Phase(2, {"stable": 5_000, "canary": 5_000}, {"int8"}),
    ]
    seen = [
        exchange("stable", 1, revision=1),
        exchange("stable", 3, revision=1),
        exchange("stable", 3, revision=2),
        exchange("canary", 3, label=7, revision=2),
        failed("UNAVAILABLE", revision=2),
        failed("UNAVAILABLE", revision=0),
    ]
    assert expected_tallies(seen, phases, models) == {
        ("stable", "canary"): TrafficTally(compared=2, other_label=1),
        ("stable", "int8"): TrafficTally(compared=3, other_label=1),
        ("canary", "int8"): TrafficTally(compared=1, other_label=1),
    }


def test_the_rate_of_no_comparisons_is_not_a_number() -> None:
    assert math.isnan(TrafficTally(0, 0).rate)
    assert TrafficTally(4, 1).rate == 0.25
