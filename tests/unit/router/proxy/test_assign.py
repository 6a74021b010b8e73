import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest, NotFound
from coalmine_router.proxy.assign import Assigner, sticky_point, sticky_ranges
from coalmine_router.proxy.block import Block, Chance
from coalmine_router.table import WHOLE_BP, Match, Route, Shadow, Variant


def chance(seed: int = 1) -> Chance:
    return random.Random(seed).random


# Of a chi-square of so many degrees of freedom: once in a million.
CHI_SQUARE_MAX = {1: 24.0, 2: 27.7, 4: 33.4, 6: 38.3, 9: 44.9, 19: 63.7, 81: 156.5, 99: 180.8}


def chi_square(observed: Sequence[int], expected: Sequence[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def weights(beside_stable: int) -> st.SearchStrategy[list[int]]:
    """Return weights in hundredths of a percent: stable's, and those of variants beside it."""
    cuts = st.lists(st.integers(0, WHOLE_BP), min_size=beside_stable, max_size=beside_stable)
    return cuts.map(sorted).map(
        lambda at: [b - a for a, b in zip([0, *at], [*at, WHOLE_BP], strict=True)]
    )


def route_of(weights_bp: Sequence[int], *, name: str = "digits") -> Route:
    """Return a route of stable, and variants v1, v2, … beside it."""
    variants = tuple(
        Variant(f"v{place}" if place else "stable", "blue", weight_bp=weight)
        for place, weight in enumerate(weights_bp)
    )
    return Route(name, Match(name), variants)


def of_key(weights_bp: Sequence[int], key: str) -> str:
    return Assigner(route_of(weights_bp), chance()).assign(None, key)[0].name


def route(canary_bp: int, *, shadows: tuple[Shadow, ...] = (), pinning: bool = True) -> Route:
    variants = (
        Variant("stable", "blue", weight_bp=WHOLE_BP - canary_bp),
        Variant("canary", "blue", weight_bp=canary_bp),
    )
    return Route("digits", Match("digits"), variants, shadows, pinning=pinning)


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


@settings(max_examples=30)
@given(weights(beside_stable=3), st.integers(0, 2**32))
def test_of_as_many_requests_as_a_block_has_each_variant_gets_its_share(
    weights_bp: list[int], seed: int
) -> None:
    assigner = Assigner(route_of(weights_bp), chance(seed))
    divisor = math.gcd(*weights_bp)
    for _ in range(2):
        drawn = Counter(assigner.assign(None, None)[0].name for _ in range(WHOLE_BP // divisor))
        assert [drawn[each.name] * divisor for each in assigner.route.variants] == weights_bp


@pytest.mark.parametrize("period", [2, 3, 5, 7, 10, 20])
def test_every_so_manyth_request_meets_the_canary_no_more_often_than_others(period: int) -> None:
    assigner = Assigner(route(1_000), chance(period))
    met = Counter(
        at % period for at in range(20_000) if assigner.assign(None, None)[0].name == "canary"
    )
    observed = [met[at] for at in range(period)]
    assert chi_square(observed, [2_000 / period] * period) < CHI_SQUARE_MAX[period - 1]


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


@given(
    key=st.text(min_size=1, max_size=30),
    before=st.integers(0, WHOLE_BP),
    more=st.integers(0, WHOLE_BP),
)
def test_whoever_is_in_the_canary_stays_in_it_while_it_grows(
    key: str, before: int, more: int
) -> None:
    small, large = sorted((before, more))
    was = Assigner(route(small), chance()).assign(None, key)[0].name
    now = Assigner(route(large), chance()).assign(None, key)[0].name
    assert was == "stable" or now == "canary"


@given(st.text(min_size=1, max_size=30), weights(beside_stable=2), st.data())
def test_a_change_of_one_of_two_variants_moves_nobody_of_the_other(
    key: str, before: list[int], data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from([1, 2]))
    after = list(before)
    after[place] = data.draw(st.integers(0, before[0] + before[place]))
    after[0] = WHOLE_BP - after[1] - after[2]
    changed, other = f"v{place}", f"v{3 - place}"

    was, now = of_key(before, key), of_key(after, key)

    assert (was == other) == (now == other)
    if after[place] > before[place] and was == changed:
        assert now == changed
    if after[place] < before[place] and was == "stable":
        assert now == "stable"


@given(weights(beside_stable=5))
def test_each_point_is_one_variants_and_each_variant_has_as_many_as_its_weight(
    weights_bp: list[int],
) -> None:
    ranges = sorted((begin, end) for begin, end, _ in sticky_ranges(route_of(weights_bp)))
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    owned = {
        variant.name: end - begin for begin, end, variant in sticky_ranges(route_of(weights_bp))
    }
    assert [owned.get(f"v{place}", 0) for place in range(1, 6)] == weights_bp[1:]


def test_the_first_grows_from_the_bottom_the_second_from_the_top_the_third_after_the_first() -> (
    None
):
    ranges = sticky_ranges(route_of([4_000, 1_000, 2_000, 3_000]))
    assert [(begin, end, variant.name) for begin, end, variant in ranges] == [
        (0, 1_000, "v1"),
        (8_000, 10_000, "v2"),
        (1_000, 4_000, "v3"),
    ]


def test_an_empty_sticky_key_is_none() -> None:
    assigner = Assigner(route(5_000), chance())
    given = [assigner.assign(None, "") for _ in range(10)]
    assert {reason for _, reason in given} == {pb.ASSIGNMENT_SPLIT}
    assert Counter(variant.name for variant, _ in given) == {"stable": 5, "canary": 5}


@pytest.mark.parametrize("key", ["{}", "user-{}", "{:08x}@example.org", "0000{}0000"])
def test_sticky_keys_spread_evenly(key: str) -> None:
    hundredths = Counter(sticky_point("digits", key.format(n)) // 100 for n in range(10_000))
    observed = [hundredths[place] for place in range(100)]
    assert chi_square(observed, [100.0] * 100) < CHI_SQUARE_MAX[99]


def test_where_a_key_lies_on_one_route_says_nothing_of_another() -> None:
    tenths = Counter(
        (sticky_point("digits", f"user-{n}") // 1_000, sticky_point("faces", f"user-{n}") // 1_000)
        for n in range(10_000)
    )
    rows = [sum(tenths[row, column] for column in range(10)) for row in range(10)]
    columns = [sum(tenths[row, column] for row in range(10)) for column in range(10)]
    cells = [(row, column) for row in range(10) for column in range(10)]
    expected = [rows[row] * columns[column] / 10_000 for row, column in cells]
    assert chi_square([tenths[cell] for cell in cells], expected) < CHI_SQUARE_MAX[81]


def test_the_canarys_of_two_routes_are_drawn_apart() -> None:
    rng = random.Random(5)
    digits, faces = (
        Assigner(route_of([7_500, 2_500], name=name), rng.random) for name in ("digits", "faces")
    )
    both = Counter(
        (digits.assign(None, None)[0].name, faces.assign(None, None)[0].name) for _ in range(10_000)
    )
    expected = {("v1", "v1"): 625, ("v1", "stable"): 1_875, ("stable", "v1"): 1_875}
    expected["stable", "stable"] = 5_625
    assert chi_square([both[cell] for cell in expected], [*expected.values()]) < CHI_SQUARE_MAX[1]
