"""Routes and tables at their boundaries: what they allow, what they refuse, how they change."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import InvalidRequest, NotFound
from coalmine.shares import percent
from coalmine_router.table import Backend, Match, Route, RouteTable, Shadow, Sticky, Variant


def route_of(*weights_bp: int, name: str = "digits") -> Route:
    names = ("stable", "canary", "int8")
    variants = tuple(
        Variant(each, "blue", weight_bp=weight_bp)
        for each, weight_bp in zip(names, weights_bp, strict=False)
    )
    return Route(name, Match(name), variants)


def of(match: Match, *, name: str = "digits") -> Route:
    return replace(route_of(10_000, name=name), match=match)


def table_of(*routes: Route) -> RouteTable:
    return RouteTable(1, (Backend("blue", ("b:1",)),), routes)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("weights_bp", "said"),
    [
        ((9_999,), "add up to 99.99%, expected 100%"),
        ((10_001,), "outside 0 to 100%"),
        ((10_000, 1), "add up to 100.01%"),
        ((10_001, -1), "outside 0 to 100%"),
        ((0, 0), "add up to 0%"),
    ],
)
def test_weights_that_are_no_split_are_refused(weights_bp: tuple[int, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        route_of(*weights_bp)


@pytest.mark.parametrize("weights_bp", [(10_000,), (0, 10_000), (10_000, 0, 0), (1, 9_999)])
def test_weights_from_nothing_to_everything_are_a_split(weights_bp: tuple[int, ...]) -> None:
    assert tuple(route_of(*weights_bp).weights_bp.values()) == weights_bp


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"variants": (Variant("canary", "blue", weight_bp=10_000),)}, "no variant 'stable'"),
        (
            {"variants": (Variant("stable", "b", weight_bp=10_000), Variant("stable", "b"))},
            "variant 'stable' stands there twice",
        ),
        ({"shadows": (Shadow("nix", 1),)}, "shadow 'nix' is no variant"),
        ({"shadows": (Shadow("canary", 1), Shadow("canary", 1))}, "shadow 'canary' stands"),
        ({"shadows": (Shadow("canary", 0),)}, "shadow's share lies outside"),
        ({"shadows": (Shadow("canary", 10_001),)}, "shadow's share lies outside"),
        ({"timeout_ns": 0}, "timeout is not above 0"),
        ({"match": Match()}, "match names a model, default, or a service: one of them"),
        ({"match": Match("digits", is_default=True)}, "match names a model, default, or a serv"),
        ({"match": Match("digits", service="a.B")}, "match names a model, default, or a service"),
        ({"match": Match("digits", method="C")}, "match names a method and no service"),
        ({"sticky": Sticky("x-user", id=True)}, "in metadata, a parameter or the id: in one"),
        (
            {"match": Match(service="a.B"), "sticky": Sticky(parameter="user")},
            "requests of another service are sticky by metadata alone",
        ),
        (
            {"match": Match(service="a.B"), "sticky": Sticky(id=True)},
            "requests of another service are sticky by metadata alone",
        ),
    ],
)
def test_a_route_whose_parts_contradict_is_refused_by_name(
    parts: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"route 'digits'.*{said}"):
        replace(route_of(10_000, 0), **parts)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"backends": ()}, "names backend 'blue', which does not exist"),
        ({"backends": (Backend("blue", ()),)}, "backend 'blue' has no targets"),
        ({"backends": (Backend("blue", ("b:1",)),) * 2}, "backend 'blue' stands there twice"),
        ({"routes": (route_of(10_000),) * 2}, "route 'digits' stands there twice"),
        (
            {"routes": (route_of(10_000), replace(route_of(10_000), name="other"))},
            "match: 'model digits' stands there twice",
        ),
        (
            {"routes": (of(Match(is_default=True)), of(Match(is_default=True), name="other"))},
            "match: 'any other model' stands there twice",
        ),
        (
            {"routes": (of(Match(service="a.B")), of(Match(service="a.B"), name="other"))},
            r"match: 'a.B/\*' stands there twice",
        ),
    ],
)
def test_a_table_whose_parts_contradict_is_refused(parts: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        replace(table_of(route_of(10_000)), **parts)  # type: ignore[arg-type]  # wrong on purpose


# ---------------------------------------------------------------- finding


def test_what_is_not_there_is_not_found_and_what_is_there_is_named() -> None:
    table = table_of(route_of(10_000, 0), route_of(10_000, name="faces"))
    with pytest.raises(NotFound, match="no route 'nix', only digits, faces"):
        table.route("nix")
    with pytest.raises(NotFound, match="no variant 'nix', only stable, canary"):
        table.route("digits").variant("nix")


def test_a_method_and_all_of_its_service_are_two_matches() -> None:
    exact = of(Match(service="a.B", method="C"), name="exact")
    assert (
        len(table_of(of(Match(service="a.B")), exact, of(Match("a.B"), name="model")).routes) == 3
    )


def test_parts_are_found_by_name() -> None:
    digits = replace(route_of(10_000, 0), match=Match("digits-v2"))
    table = table_of(digits)

    assert table.route("digits") is digits
    assert digits.stable is digits.variant("stable")
    assert table.by_backend["blue"].targets == ("b:1",)


# ---------------------------------------------------------------- changing


@pytest.mark.parametrize(
    ("changed_bp", "expected_bp"),
    [
        ({}, (8_000, 2_000, 0)),
        ({"canary": 0}, (10_000, 0, 0)),
        ({"canary": 10_000}, (0, 10_000, 0)),
        ({"int8": 8_000}, (0, 2_000, 8_000)),
        ({"canary": 1, "int8": 2}, (9_997, 1, 2)),
        ({"stable": 8_000}, (8_000, 2_000, 0)),
        ({"stable": 1, "canary": 2, "int8": 9_997}, (1, 2, 9_997)),
    ],
)
def test_unnamed_variants_keep_their_weight_and_stable_takes_the_remainder(
    changed_bp: dict[str, int], expected_bp: tuple[int, ...]
) -> None:
    changed = route_of(8_000, 2_000, 0).with_weights(changed_bp)

    assert tuple(changed.weights_bp.values()) == expected_bp


@pytest.mark.parametrize(
    ("changed_bp", "said"),
    [
        ({"canary": 10_001}, "weights beside stable add up to 100.01%"),
        ({"int8": 8_001}, "weights beside stable add up to 100.01%"),
        ({"stable": 8_001}, "weights add up to 100.01%"),
        ({"stable": 0}, "weights add up to 20%"),
    ],
)
def test_weights_that_do_not_add_up_are_refused(changed_bp: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        route_of(8_000, 2_000, 0).with_weights(changed_bp)


NAMES = st.sampled_from(["stable", "canary", "int8"])


@given(
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.dictionaries(NAMES, st.integers(-10, 11_000), max_size=3),
)
def test_a_change_of_weights_sums_to_everything_or_is_refused(
    canary_bp: int, int8_bp: int, changed_bp: dict[str, int]
) -> None:
    route = route_of(10_000 - canary_bp - int8_bp, canary_bp, int8_bp)
    try:
        changed = route.with_weights(changed_bp)
    except InvalidRequest:
        return
    assert sum(changed.weights_bp.values()) == 10_000
    assert changed_bp.items() <= changed.weights_bp.items()
    unnamed = {"canary", "int8"} - changed_bp.keys()
    assert all(changed.weights_bp[name] == route.weights_bp[name] for name in unnamed)


def test_a_shadow_is_switched_on_changed_and_switched_off() -> None:
    route = route_of(10_000, 0, 0)
    on = route.with_shadow("int8", 2_500)
    more = on.with_shadow("canary", 1).with_shadow("int8", 10_000)

    assert on.shadows_bp == {"int8": 2_500}
    assert more.shadows_bp == {"int8": 10_000, "canary": 1}
    assert more.with_shadow("int8", 0).with_shadow("canary", 0) == route
    with pytest.raises(NotFound):
        route.with_shadow("nix", 0)
    with pytest.raises(InvalidRequest):
        route.with_shadow("int8", 10_001)


def test_a_replaced_route_makes_the_next_revision_and_leaves_the_old_table_alone() -> None:
    table = table_of(route_of(10_000, 0), route_of(10_000, name="faces"))
    changed = table.replacing(table.route("digits").with_weights({"canary": 1}))

    assert (table.revision, changed.revision) == (1, 2)
    assert table.route("digits").weights_bp["canary"] == 0
    assert changed.route("digits").weights_bp["canary"] == 1
    assert changed.route("faces") is table.route("faces")
    with pytest.raises(FrozenInstanceError):
        table.revision = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("share_bp", "text"),
    [
        (0, "0%"),
        (1, "0.01%"),
        (10, "0.1%"),
        (100, "1%"),
        (1_250, "12.5%"),
        (2_500, "25%"),
        (9_999, "99.99%"),
        (10_000, "100%"),
    ],
)
def test_shares_are_written_as_people_write_them(share_bp: int, text: str) -> None:
    assert percent(share_bp) == text
