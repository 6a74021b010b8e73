"""What a wish makes of the table, and who must be ready for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import NotFound, StaleRevision
from coalmine_router.control.plan import ShadowShare, Wish, WishedWeights, plan
from coalmine_router.table import Backend, Match, Route, RouteTable, Shadow, Variant

TABLE = RouteTable(
    7,
    (Backend("blue", ("b:1",)),),
    (
        Route(
            "digits",
            Match("digits"),
            (
                Variant("stable", "blue", weight_bp=8_000),
                Variant("canary", "blue", weight_bp=2_000),
                Variant("int8", "blue"),
            ),
            (Shadow("int8", 500),),
        ),
    ),
)


@pytest.mark.parametrize(
    ("edit", "gaining"),
    [
        (WishedWeights({"canary": 2_000}), set()),
        (WishedWeights({"canary": 1_999}), set()),
        (WishedWeights({"canary": 2_001}), {"canary"}),
        (WishedWeights({"canary": 0}), set()),
        (WishedWeights({"canary": 0, "int8": 1}), {"int8"}),
        (WishedWeights({"canary": 0, "stable": 10_000}), set()),
        (ShadowShare("int8", 500), set()),
        (ShadowShare("int8", 501), {"int8"}),
        (ShadowShare("int8", 0), set()),
        (ShadowShare("canary", 1), {"canary"}),
    ],
)
def test_only_what_gets_a_larger_share_must_be_ready(
    edit: WishedWeights | ShadowShare, gaining: set[str]
) -> None:
    assert plan(TABLE, Wish("digits", edit, "ada")).gaining == gaining


@pytest.mark.parametrize("edit", [WishedWeights({"canary": 2_000}), ShadowShare("int8", 500)])
def test_a_wish_that_is_fulfilled_already_keeps_the_very_table(
    edit: WishedWeights | ShadowShare,
) -> None:
    made = plan(TABLE, Wish("digits", edit, "ada"))

    assert made.is_unchanged
    assert made.after is TABLE


def test_the_revision_may_be_expected_and_zero_expects_any() -> None:
    for expected in (0, 7):
        wish = Wish("digits", WishedWeights({"canary": 0}), "ada", expect_revision=expected)
        assert plan(TABLE, wish).after.revision == 8
    with pytest.raises(StaleRevision, match="route 'digits' is at revision 7, not 8"):
        plan(TABLE, Wish("digits", WishedWeights({"canary": 0}), "ada", expect_revision=8))


def test_a_wish_for_an_unknown_variant_or_route_is_not_found() -> None:
    with pytest.raises(NotFound, match="only digits"):
        plan(TABLE, Wish("nix", WishedWeights({"canary": 1}), "ada"))
    with pytest.raises(NotFound, match="only stable, canary, int8"):
        plan(TABLE, Wish("digits", ShadowShare("nix", 1), "ada"))


def test_the_history_entry_holds_both_splits_and_the_same_definition() -> None:
    weights = plan(TABLE, Wish("digits", WishedWeights({"canary": 0}), "ada", "why")).change(5)
    shadow = plan(TABLE, Wish("digits", ShadowShare("int8", 0), "ada")).change(6)

    assert (weights.revision, weights.at_ns, weights.action) == (8, 5, "weights")
    assert (weights.actor, weights.reason) == ("ada", "why")
    assert weights.before.weights_bp == {"stable": 8_000, "canary": 2_000, "int8": 0}
    assert weights.after.weights_bp == {"stable": 10_000, "canary": 0, "int8": 0}
    assert (shadow.before.shadows_bp, shadow.after.shadows_bp) == ({"int8": 500}, {})
    assert weights.definition == shadow.definition


@given(st.dictionaries(st.sampled_from(["canary", "int8"]), st.integers(0, 5_000), min_size=1))
def test_what_gains_was_asked_for_by_name(weights_bp: dict[str, int]) -> None:
    made = plan(TABLE, Wish("digits", WishedWeights(weights_bp), "ada"))

    assert made.gaining <= set(weights_bp)
    assert sum(made.after.route("digits").weights_bp.values()) == 10_000
