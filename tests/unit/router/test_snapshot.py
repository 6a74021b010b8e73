"""Route tables as messages, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.snapshot import route_message, table_from, table_message
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

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


LIMITS = st.builds(Limits, st.integers(0, 2**32 - 1), st.integers(0, 2**63))
STICKY = [Sticky(), Sticky("x-user-id"), Sticky(parameter="user"), Sticky(id=True)]
TLS = st.none() | st.builds(BackendTls, *(st.just("") | NAME for _ in range(4)))


@st.composite
def routes(draw: st.DrawFn, name: str, backends: list[str]) -> Route:
    names = ["stable", *sorted(draw(st.sets(NAME, max_size=3)) - {"stable"})]
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=len(names) - 1, max_size=3)))
    edges = [0, *cuts[: len(names) - 1], 10_000]
    variants = tuple(
        Variant(
            each,
            draw(st.sampled_from(backends)),
            draw(st.just("") | NAME),
            draw(st.just("") | NAME),
            edges[place + 1] - edges[place],
        )
        for place, each in enumerate(names)
    )
    match = draw(
        st.sampled_from([Match(name), Match(service=name), Match(service="s", method=name)])
    )
    copied = draw(st.sets(st.sampled_from(["infer", "Do"]))) if match.service else {"infer"}
    shadowed = draw(st.sets(st.sampled_from(names))) if copied else set()
    shadows = tuple(Shadow(each, draw(st.integers(1, 10_000))) for each in sorted(shadowed))
    return Route(
        name=name,
        match=match,
        variants=variants,
        shadows=shadows,
        sticky=draw(st.sampled_from(STICKY[:2] if match.service else STICKY)),
        timeout_ns=draw(st.integers(1, 2**63)),
        pinning=draw(st.booleans()),
        fallback=draw(st.booleans()),
        strict_version=draw(st.booleans()),
        limits=draw(LIMITS),
        audit_bp=draw(st.integers(0, 10_000)) if copied else 0,
        noise_bp=draw(st.integers(0, 10_000)) if copied else 0,
        copy_methods=tuple(sorted(copied)) if match.service else (),
        stateful=not copied and draw(st.booleans()),
    )


@st.composite
def tables(draw: st.DrawFn) -> RouteTable:
    backends = sorted(draw(st.sets(NAME, min_size=1, max_size=3)))
    targets = st.lists(NAME, min_size=1, max_size=3).map(tuple)
    names = sorted(draw(st.sets(NAME, max_size=3)))
    return RouteTable(
        revision=draw(st.integers(0, 2**63)),
        backends=tuple(
            Backend(each, draw(targets), draw(TLS), draw(st.just("") | NAME)) for each in backends
        ),
        routes=tuple(draw(routes(each, backends)) for each in names),
        limits=draw(LIMITS),
    )


@given(tables())
def test_a_table_survives_the_wire(table: RouteTable) -> None:
    sent = table_message(table).SerializeToString()

    assert table_from(pb.RouteTable.FromString(sent)) == table


def message() -> pb.RouteTable:
    return pb.RouteTable(
        revision=3,
        backends=[pb.Backend(name="blue", targets=["b:1"])],
        routes=[
            pb.Route(
                name="digits",
                match_model="digits",
                timeout_ns=1,
                limits=pb.Limits(),
                variants=[pb.Variant(name="stable", backend="blue", weight_bp=10_000)],
            )
        ],
    )


def test_a_route_alone_is_the_one_in_its_table() -> None:
    table = table_from(message())

    assert route_message(table.route("digits")) == message().routes[0]


def test_a_default_route_survives_the_wire() -> None:
    sent = message()
    sent.routes[0].match_model, sent.routes[0].match_default = "", True
    assert table_from(sent).routes[0].match == Match(is_default=True)
    assert table_message(table_from(sent)).routes == sent.routes


def test_tls_without_any_file_is_not_plaintext() -> None:
    sent = message()
    assert table_from(sent).backends[0].tls is None
    sent.backends[0].tls.SetInParent()
    assert table_from(sent).backends[0].tls == BackendTls()
    assert table_message(table_from(sent)).backends[0].HasField("tls")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("backends", "names backend 'blue'"),
        ("routes.timeout_ns", "timeout"),
        ("routes.variants", "no variant 'stable'"),
        ("routes.variants.weight_bp", "add up to 0%"),
        ("backends.targets", "no targets"),
    ],
)
def test_a_table_that_lost_a_part_is_invalid(field: str, said: str) -> None:
    wrong = message()
    *path, last = field.split(".")
    at = wrong
    for step in path:
        at = getattr(at, step)[0]
    at.ClearField(last)  # type: ignore[arg-type]  # a name from the table above
    with pytest.raises(InvalidRequest, match=said):
        table_from(wrong)


def test_a_shadow_of_no_variant_is_invalid_as_everything_else_that_is_wrong() -> None:
    wrong = message()
    wrong.routes[0].shadows.add(variant="nix", share_bp=1)
    with pytest.raises(InvalidRequest, match="shadow 'nix'"):
        table_from(wrong)
