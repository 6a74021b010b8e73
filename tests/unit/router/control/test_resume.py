"""Taking up again: what is saved wins, and what the configuration changed is written down."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import InvalidRequest
from coalmine_router.control.resume import (
    ACTOR,
    Resumed,
    Served,
    saved_start,
    served_start,
)
from coalmine_router.control.route_history import LEFT, Change, Split, definition_of
from coalmine_router.table import Backend, Match, Route, RouteTable, Shadow, Variant

NOW_NS = 1_700_000_000_000_000_000


def route_of(name: str = "digits", *, shadow_bp: int = 0, **weights_bp: int) -> Route:
    return split_route(name, weights_bp, shadow_bp)


def split_route(name: str, weights_bp: Mapping[str, int], shadow_bp: int = 0) -> Route:
    variants = tuple(Variant(each, "blue", weight_bp=bp) for each, bp in weights_bp.items())
    shadows = (Shadow("canary", shadow_bp),) if shadow_bp else ()
    return Route(name, Match(name), variants, shadows)


def table_of(*routes: Route, target: str = "b:1") -> RouteTable:
    return RouteTable(0, (Backend("blue", (target,)),), routes)


def saved(
    revision: int,
    configured: RouteTable,
    weights_bp: Mapping[str, int],
    shadows_bp: Mapping[str, int] | None = None,
    *,
    route: str = "digits",
) -> Change:
    """Return what a router that had this configuration wrote down last."""
    after = Split(weights_bp, shadows_bp or {})
    definition = definition_of(configured, configured.route(route))
    return Change(revision, route, 1, "ada", "", "weights", Split(), after, definition)


def again(configured: RouteTable, before: Resumed, kept: Mapping[str, Change]) -> Resumed:
    newest = {**kept, **{change.route: change for change in before.changes}}
    return saved_start(configured, newest, before.table.revision, NOW_NS)


def test_a_first_start_takes_the_configured_split_and_writes_it_down() -> None:
    faces = route_of("faces", stable=10_000)
    configured = table_of(route_of(stable=9_000, canary=1_000, shadow_bp=5), faces)
    began = saved_start(configured, {}, 0, NOW_NS)

    assert began.table.revision == 2
    assert began.table.routes == configured.routes
    digits, _ = began.changes
    assert (digits.revision, digits.route, digits.action) == (1, "digits", "configured")
    assert (digits.actor, digits.at_ns, digits.reason) == (ACTOR, NOW_NS, "new route")
    assert digits.before == Split()
    assert digits.after == Split({"stable": 9_000, "canary": 1_000}, {"canary": 5})


def test_a_saved_split_wins_over_the_configured_one_and_nothing_is_written() -> None:
    configured = table_of(route_of(stable=9_000, canary=1_000))
    newest = {"digits": saved(41, configured, {"stable": 3_000, "canary": 7_000}, {"canary": 10})}
    began = saved_start(configured, newest, 41, NOW_NS)

    assert began.changes == ()
    assert began.table.revision == 41
    assert began.table.route("digits").weights_bp == {"stable": 3_000, "canary": 7_000}
    assert began.table.route("digits").shadows_bp == {"canary": 10}


def test_a_new_variant_starts_at_nothing_beside_a_saved_split() -> None:
    old = table_of(route_of(stable=10_000, canary=0))
    configured = table_of(route_of(stable=5_000, canary=0, int8=5_000))
    began = saved_start(configured, {"digits": saved(3, old, {"stable": 1, "canary": 9_999})}, 3, 0)

    assert began.table.route("digits").weights_bp == {"stable": 1, "canary": 9_999, "int8": 0}
    assert [each.reason for each in began.changes] == ["the route is defined otherwise than before"]


def test_a_variant_that_is_gone_leaves_its_weight_to_stable_and_its_shadow_ends() -> None:
    old = table_of(route_of(stable=10_000, canary=0, int8=0))
    split = {"stable": 7_000, "canary": 1_000, "int8": 2_000}
    newest = {"digits": saved(9, old, split, {"int8": 50, "canary": 60})}
    began = saved_start(table_of(route_of(stable=10_000, canary=0)), newest, 9, NOW_NS)

    assert began.table.revision == 10
    assert began.table.route("digits").weights_bp == {"stable": 9_000, "canary": 1_000}
    (change,) = began.changes
    assert change.reason == "variant 'int8' is gone, its 20% went to stable; shadow 'int8' is gone"
    assert change.before == Split(split, {"int8": 50, "canary": 60})
    assert change.after == Split({"stable": 9_000, "canary": 1_000}, {"canary": 60})


def test_a_backend_that_moved_gets_a_revision_of_its_own() -> None:
    old = table_of(route_of(stable=10_000))
    configured = table_of(route_of(stable=10_000), target="elsewhere:1")
    began = saved_start(configured, {"digits": saved(5, old, {"stable": 10_000})}, 5, NOW_NS)

    assert began.table.revision == 6
    assert again(configured, began, {}).changes == ()


def test_a_route_that_is_gone_stays_in_the_history_and_takes_up_there_when_it_is_back() -> None:
    whole = table_of(route_of(stable=10_000, canary=0), route_of("faces", stable=10_000))
    rest = table_of(route_of("faces", stable=10_000))
    kept = {
        "digits": saved(2, whole, {"stable": 6_000, "canary": 4_000}),
        "faces": saved(1, whole, {"stable": 10_000}, route="faces"),
    }
    without = saved_start(rest, kept, 2, NOW_NS)
    back = again(whole, without, kept)

    assert [route.name for route in without.table.routes] == ["faces"]
    assert [(each.route, each.reason) for each in without.changes] == [
        ("digits", "the route is gone")
    ]
    assert without.changes[0].definition == LEFT
    assert again(rest, without, kept).changes == ()
    assert [each.reason for each in back.changes] == ["the route is back"]
    assert back.table.revision == 4
    assert back.table.route("digits").weights_bp == {"stable": 6_000, "canary": 4_000}


def test_a_saved_split_of_more_than_everything_is_refused() -> None:
    configured = table_of(route_of(stable=10_000, canary=0))
    with pytest.raises(InvalidRequest):
        saved_start(configured, {"digits": saved(1, configured, {"canary": 10_001})}, 1, NOW_NS)


NAMES = ("canary", "int8", "fp16", "v3")


@st.composite
def tables(draw: st.DrawFn) -> RouteTable:
    names = draw(st.sets(st.sampled_from(NAMES)))
    weights = {name: draw(st.integers(0, 2_500)) for name in sorted(names)}
    route = split_route("digits", {"stable": 10_000 - sum(weights.values()), **weights})
    return table_of(*([route] if draw(st.booleans()) else [route_of("faces", stable=10_000)]))


@given(st.lists(tables(), min_size=1, max_size=6))
def test_any_row_of_configurations_resumes_to_a_whole_split_and_then_holds_still(
    configurations: list[RouteTable],
) -> None:
    newest: dict[str, Change] = {}
    revision = 0
    for configured in configurations:
        began = saved_start(configured, newest, revision, NOW_NS)
        newest |= {change.route: change for change in began.changes}
        revision = began.table.revision
        for route in began.table.routes:
            assert sum(route.weights_bp.values()) == 10_000
            assert newest[route.name].after == Split.of(route)

        still = saved_start(configured, newest, revision, NOW_NS)
        assert still == Resumed(began.table, ())


# ---------------------------------------------------------------- beside what is served

CONFIGURED = table_of(route_of(stable=10_000, canary=0))
OF_THE_HISTORY = {"stable": 3_000, "canary": 7_000}
OF_THE_TABLE = {"stable": 0, "canary": 10_000}


def served(revision: int, *, is_provisional: bool = False) -> Served:
    weights_bp = {"stable": 10_000, "canary": 0} if is_provisional else OF_THE_TABLE
    table = table_of(split_route("digits", weights_bp))
    return Served(replace(table, revision=revision), is_provisional)


@pytest.mark.parametrize(
    ("history_to", "served_before", "revision", "weights_bp", "why"),
    [
        (5, None, 5, OF_THE_HISTORY, []),
        (5, served(4), 5, OF_THE_HISTORY, []),
        (5, served(5), 5, OF_THE_HISTORY, []),
        (5, served(6), 7, OF_THE_TABLE, ["the history ended at revision 5"]),
        (0, served(6), 7, OF_THE_TABLE, ["the history was lost"]),
        (5, served(1, is_provisional=True), 6, OF_THE_HISTORY, ["the state can be used again"]),
        (5, served(9, is_provisional=True), 10, OF_THE_HISTORY, ["the state can be used again"]),
        (0, served(1, is_provisional=True), 1, {"stable": 10_000, "canary": 0}, ["new route"]),
    ],
)
def test_what_was_served_later_than_the_history_knows_of_wins_and_no_revision_goes_back(
    history_to: int,
    served_before: Served | None,
    revision: int,
    weights_bp: Mapping[str, int],
    why: list[str],
) -> None:
    newest = {"digits": saved(history_to, CONFIGURED, OF_THE_HISTORY)} if history_to else {}
    began = served_start(CONFIGURED, newest, served_before, NOW_NS)
    assert began.table.revision == revision
    assert began.table.route("digits").weights_bp == weights_bp
    assert [each.reason.partition(";")[0] for each in began.changes] == why
    assert again(CONFIGURED, began, newest).changes == ()


@given(
    st.integers(0, 9),
    st.one_of(st.none(), st.builds(served, st.integers(1, 9), is_provisional=st.booleans())),
)
def test_a_table_is_never_told_by_a_revision_that_another_one_had(
    history_to: int, served_before: Served | None
) -> None:
    newest = {"digits": saved(history_to, CONFIGURED, OF_THE_HISTORY)} if history_to else {}
    began = served_start(CONFIGURED, newest, served_before, NOW_NS)
    assert began.table.revision >= history_to
    if served_before is not None and newest:
        assert began.table.revision >= served_before.table.revision
        if served_before.is_provisional:
            assert began.table.revision > max(history_to, served_before.table.revision)
