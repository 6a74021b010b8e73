import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest, NotFound
from coalmine_router.proxy.assign import Assigner, Block, Chance, sticky_point
from coalmine_router.table import WHOLE_BP, Route, Shadow, Variant


def chance(seed: int = 1) -> Chance:
    return random.Random(seed).random


def route(canary_bp: int, *, shadows: tuple[Shadow, ...] = (), pinning: bool = True) -> Route:
    variants = (
        Variant("stable", "blue", weight_bp=WHOLE_BP - canary_bp),
        Variant("canary", "blue", weight_bp=canary_bp),
    )
    return Route("digits", "digits", variants, shadows, pinning=pinning)


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 2**32),
)
def test_every_block_holds_each_choice_exactly_as_often_as_asked(
    counts: list[int], seed: int
) -> None:
    block = Block(counts, chance(seed))
    for _ in range(3):
        drawn = Counter(block.draw() for _ in range(sum(counts)))
        assert [drawn[choice] for choice in range(len(counts))] == counts


def test_the_order_within_a_block_differs_from_block_to_block() -> None:
    block = Block([7, 6], chance())
    rounds = {tuple(block.draw() for _ in range(13)) for _ in range(20)}
    assert len(rounds) > 15


def test_each_position_of_a_block_is_as_likely_to_be_the_canarys() -> None:
    block = Block([9, 1], chance(3))
    positions = Counter(
        next(at for at, choice in enumerate([block.draw() for _ in range(10)]) if choice == 1)
        for _ in range(10_000)
    )
    assert set(positions) == set(range(10))
    assert all(800 < count < 1_200 for count in positions.values())


def test_of_ten_thousand_requests_a_hundredth_of_a_percent_is_one() -> None:
    assigner = Assigner(route(1), chance())
    names = Counter(assigner.assign(None, None)[0].name for _ in range(WHOLE_BP))
    assert names == {"stable": WHOLE_BP - 1, "canary": 1}


def test_a_weight_of_nothing_or_all_leaves_no_choice() -> None:
    for canary_bp, name in ((0, "stable"), (WHOLE_BP, "canary")):
        assigner = Assigner(route(canary_bp), chance())
        assert {assigner.assign(None, None)[0].name for _ in range(50)} == {name}


def test_the_reason_says_how_a_variant_was_chosen() -> None:
    assigner = Assigner(route(5_000), chance())
    assert assigner.assign(None, None)[1] == pb.ASSIGNMENT_SPLIT
    assert assigner.assign(None, "ann")[1] == pb.ASSIGNMENT_STICKY
    assert assigner.assign("canary", "ann")[1] == pb.ASSIGNMENT_PINNED


def test_a_pinned_or_sticky_request_takes_no_slot_of_the_block() -> None:
    assigner = Assigner(route(5_000), chance())
    names = Counter[str]()
    for _ in range(10):
        assigner.assign("canary", None)
        assigner.assign(None, "ann")
        names[assigner.assign(None, None)[0].name] += 1
    assert names == {"stable": 5, "canary": 5}


def test_a_pin_is_refused_where_it_is_not_allowed_or_names_nobody() -> None:
    with pytest.raises(InvalidRequest, match="does not allow"):
        Assigner(route(0, pinning=False), chance()).assign("canary", None)
    with pytest.raises(NotFound, match="no variant 'nobody', only stable, canary"):
        Assigner(route(0), chance()).assign("nobody", None)


@given(key=st.text(max_size=30), before=st.integers(0, WHOLE_BP), more=st.integers(0, WHOLE_BP))
def test_whoever_is_in_the_canary_stays_in_it_while_it_grows(
    key: str, before: int, more: int
) -> None:
    small, large = sorted((before, more))
    was = Assigner(route(small), chance()).assign(None, key)[0].name
    now = Assigner(route(large), chance()).assign(None, key)[0].name
    assert was == "stable" or now == "canary"


def test_sticky_keys_spread_evenly_and_differently_on_each_route() -> None:
    tenths = Counter(sticky_point("digits", f"user-{n}") // 1_000 for n in range(20_000))
    assert all(1_800 < tenths[tenth] < 2_200 for tenth in range(10))
    moved = [
        key
        for key in map(str, range(200))
        if sticky_point("digits", key) != sticky_point("faces", key)
    ]
    assert len(moved) > 190


def test_a_shadow_gets_exactly_its_share() -> None:
    assigner = Assigner(route(0, shadows=(Shadow("canary", 2_500),)), chance())
    stable = assigner.route.stable
    copies = sum(assigner.shadows(stable) == ["canary"] for _ in range(400))
    assert copies == 100


def test_a_variant_is_no_shadow_of_its_own_answer() -> None:
    assigner = Assigner(route(5_000, shadows=(Shadow("canary", WHOLE_BP),)), chance())
    assert assigner.shadows(assigner.route.variant("canary")) == []
    assert assigner.shadows(assigner.route.stable) == ["canary"]
