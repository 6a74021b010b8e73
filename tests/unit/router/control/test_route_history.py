"""History entries: their text on disk, their message, and what a definition is."""

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_router.control.route_history import Change, Split, change_message, definition_of
from coalmine_router.table import (
    Backend,
    BackendTls,
    Limits,
    Match,
    Route,
    RouteTable,
    Shadow,
    Sticky,
    Variant,
)

ROUTE = Route(
    "digits",
    Match("digits"),
    (Variant("stable", "blue", weight_bp=10_000), Variant("canary", "green", version="2")),
)
TABLE = RouteTable(1, (Backend("blue", ("b:1",)), Backend("green", ("g:1", "g:2"))), (ROUTE,))

SHARES = st.dictionaries(st.text(max_size=20), st.integers(0, 10_000), max_size=5)


@given(SHARES, SHARES)
def test_a_split_survives_its_text(weights_bp: dict[str, int], shadows_bp: dict[str, int]) -> None:
    split = Split(weights_bp, shadows_bp)

    assert Split.from_json(split.to_json()) == split


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"weights_bp": {}}',
        '{"weights_bp": [], "shadows_bp": {}}',
        '{"weights_bp": {"a": "1"}, "shadows_bp": {}}',
        '{"weights_bp": {"a": 1.5}, "shadows_bp": {}}',
        '{"weights_bp": {}, "shadows_bp": {"a": true}}',
    ],
)
def test_other_text_is_no_split(text: str) -> None:
    with pytest.raises(ValueError, match=r"split|Expecting"):
        Split.from_json(text)


def test_a_change_is_told_with_everything_but_its_definition() -> None:
    before, after = Split({"stable": 10_000}), Split({"stable": 1}, {"int8": 2})
    message = change_message(
        Change(3, "digits", 4, "ada", "why", "weights", before, after, "secret")
    )

    assert (message.revision, message.route, message.at_ns) == (3, "digits", 4)
    assert (message.actor, message.reason, message.action) == ("ada", "why", "weights")
    assert dict(message.before.weights_bp) == {"stable": 10_000}
    assert dict(message.after.shadows_bp) == {"int8": 2}


def test_weights_shadows_and_other_routes_are_no_part_of_a_definition() -> None:
    definition = definition_of(TABLE, ROUTE)
    shifted = replace(ROUTE.with_weights({"canary": 1}), shadows=(Shadow("canary", 1),))
    other = replace(TABLE, backends=(*TABLE.backends, Backend("red", ("r:1",))), revision=9)

    assert definition_of(TABLE.replacing(shifted), shifted) == definition
    assert definition_of(other, ROUTE) == definition


@pytest.mark.parametrize(
    "changed",
    [
        replace(ROUTE, timeout_ns=1),
        replace(ROUTE, pinning=False),
        replace(ROUTE, fallback=True),
        replace(ROUTE, limits=Limits(1)),
        replace(ROUTE, sticky=Sticky("x-user")),
        replace(ROUTE, sticky=Sticky(parameter="user")),
        replace(ROUTE, sticky=Sticky(id=True)),
        replace(ROUTE, match=Match("digits2")),
        replace(ROUTE, match=Match(is_default=True)),
        replace(ROUTE, match=Match(service="shop.Cart", method="Add")),
        replace(ROUTE, variants=ROUTE.variants[:1]),
        replace(ROUTE, variants=(ROUTE.variants[0], replace(ROUTE.variants[1], version="3"))),
    ],
)
def test_everything_else_of_a_route_is(changed: Route) -> None:
    assert definition_of(replace(TABLE, routes=(changed,)), changed) != definition_of(TABLE, ROUTE)


@pytest.mark.parametrize(
    "green",
    [
        Backend("green", ("g:1",)),
        Backend("green", ("g:1", "g:2"), BackendTls()),
        Backend("green", ("g:1", "g:2"), token_file="token"),
    ],
)
def test_how_its_backends_are_reached_is_part_of_a_routes_definition(green: Backend) -> None:
    moved = replace(TABLE, backends=(TABLE.backends[0], green))

    assert definition_of(moved, ROUTE) != definition_of(TABLE, ROUTE)


def test_a_definition_costs_the_same_in_a_table_of_any_size() -> None:
    def calls(routes: int) -> int:
        variants = (Variant("stable", "b0", weight_bp=10_000),)
        many = RouteTable(
            1,
            tuple(Backend(f"b{at}", ("b:1",)) for at in range(routes)),
            tuple(Route(f"r{at}", Match(f"m{at}"), variants) for at in range(routes)),
        )
        definition_of(many, many.routes[0])  # what is made once for each table, it has now
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            definition_of(many, many.routes[0])
        finally:
            sys.setprofile(None)
        return counted

    assert calls(200) == calls(2)
