"""A table made ready to route by: what is found for a request, and what outlives a change."""

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from coalmine.errors import NotFound
from coalmine.inference import inference_pb2 as oip
from coalmine_router.proxy.routing import NOTHING_ROUTED, Routing, routing_of
from coalmine_router.table import Backend, Limits, Match, Route, RouteTable, Variant


@dataclass(frozen=True)
class NamedVariant:
    where: str


class NamedEndpoints:
    """Endpoints that are only named, each made once."""

    def __init__(self) -> None:
        self._known: dict[str, NamedVariant] = {}

    def endpoints(self, route: str, variant: str) -> Any:
        where = f"{route}/{variant}"
        return self._known.setdefault(where, NamedVariant(where))


ENDPOINTS = NamedEndpoints()


def route(name: str, match: Match | None = None, *, canary_bp: int = 5_000, **parts: Any) -> Route:
    variants = (
        Variant("stable", "blue", weight_bp=10_000 - canary_bp),
        Variant("canary", "blue", model="next", version="2", weight_bp=canary_bp),
    )
    return Route(name, match or Match(name), variants, **parts)


def table(*routes: Route, revision: int = 1, limits: Limits | None = None) -> RouteTable:
    return RouteTable(revision, (Backend("blue", ("b:1",)),), routes, limits or Limits())


def routed(now: RouteTable, before: Routing = NOTHING_ROUTED) -> Routing:
    return routing_of(now, before, ENDPOINTS, random.Random(1).random)


# ---------------------------------------------------------------- what is found


def test_a_model_is_its_routes_and_others_are_nobodys() -> None:
    routing = routed(table(route("digits", Match("digits-model")), route("faces")))
    assert routing.route_of_model("digits-model").route.name == "digits"
    assert routing.route_of_model("faces").route.name == "faces"
    for name in ("digits", "", "Faces"):
        with pytest.raises(NotFound, match=f"no route for model '{name}'"):
            routing.route_of_model(name)


def test_with_a_default_route_every_model_has_one() -> None:
    routing = routed(table(route("digits"), route("rest", Match(is_default=True))))
    assert routing.route_of_model("digits").route.name == "digits"
    assert routing.route_of_model("anything").route.name == "rest"
    assert routing.route_of_model("").route.name == "rest"


def test_a_refusal_has_no_more_of_a_name_than_fits() -> None:
    with pytest.raises(NotFound) as caught:
        routed(table(route("digits"))).route_of_model("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_route_of_the_method_comes_before_one_of_its_service() -> None:
    all_of_it = route("cart", Match(service="shop.Cart"))
    add = route("add", Match(service="shop.Cart", method="Add"))
    for order in ((all_of_it, add), (add, all_of_it)):
        routing = routed(table(*order))
        found = {name: routing.route_of_method(f"shop.Cart/{name}") for name in ("Add", "Remove")}
        assert {name: each.route.name for name, each in found.items() if each} == {
            "Add": "add",
            "Remove": "cart",
        }


@pytest.mark.parametrize("method", ["shop.Cart/Remove", "shop.Carts/Add", "Add", "", "/", "*"])
def test_a_method_that_nobody_named_is_nobodys(method: str) -> None:
    routing = routed(table(route("add", Match(service="shop.Cart", method="Add"))))
    assert routing.route_of_method(method) is None
    assert routed(table(route("digits"))).route_of_method(method) is None


def test_nobody_can_ask_for_a_method_called_star() -> None:
    routing = routed(table(route("digits"), route("rest", Match(is_default=True))))
    assert routing.route_of_method("digits/*") is None


# ---------------------------------------------------------------- what a variant adds


def test_a_variant_sets_its_model_and_version_and_stamps_answers_with_its_name() -> None:
    found = routed(table(route("digits"), revision=7)).route_of_model("digits")
    assert found.stable.override == b""
    canary = found.variants["canary"]
    asked = oip.ModelInferRequest(model_name="digits", model_version="1").SerializeToString()
    told = oip.ModelInferRequest.FromString(asked + canary.override)
    assert (told.model_name, told.model_version) == ("next", "2")
    assert canary.stamp == (("x-coalmine-variant", "canary"), ("x-coalmine-revision", "7"))
    assert canary.endpoints is ENDPOINTS.endpoints("digits", "canary")


def test_requests_of_another_service_are_left_as_they_are() -> None:
    found = routed(table(route("cart", Match(service="shop.Cart")))).by_name["cart"]
    assert {each.override for each in found.variants.values()} == {b""}


def test_timeout_and_limits_are_those_of_the_table() -> None:
    routing = routed(
        table(route("digits", timeout_ns=1_500_000_000, limits=Limits(3, 4)), limits=Limits(30, 40))
    )
    found = routing.route_of_model("digits")
    assert (found.timeout_s, found.admission.limits) == (1.5, Limits(3, 4))
    assert routing.limits == Limits(30, 40)


# ---------------------------------------------------------------- what outlives a change


def test_a_change_of_a_neighbour_does_not_begin_a_block_anew() -> None:
    first = routed(table(route("digits", canary_bp=1_000), route("faces")))
    drawn = Counter[str]()
    for _ in range(5):
        drawn[first.route_of_model("digits").assigner.assign(None, None)[0].name] += 1
    second = routed(
        table(route("digits", canary_bp=1_000), route("faces", canary_bp=1), revision=2), first
    )
    for _ in range(5):
        drawn[second.route_of_model("digits").assigner.assign(None, None)[0].name] += 1
    assert drawn == {"stable": 9, "canary": 1}
    assert second.route_of_model("faces").assigner is not first.route_of_model("faces").assigner
    assert second.route_of_model("digits").revision == 2


@pytest.mark.parametrize(
    "changed",
    [
        route("digits", canary_bp=1),
        route("digits", pinning=False),
        route("digits", fallback=True),
        route("digits", Match("digits-2")),
    ],
)
def test_a_change_of_the_route_itself_makes_its_choices_anew(changed: Route) -> None:
    first = routed(table(route("digits")))
    second = routed(table(changed, revision=2), first)
    assert second.by_name["digits"].assigner is not first.by_name["digits"].assigner
    assert second.by_name["digits"].assigner.route == changed


def test_what_is_in_flight_and_what_was_tried_again_outlive_a_change_of_weights() -> None:
    first = routed(table(route("digits", limits=Limits(2))))
    old = first.route_of_model("digits")
    old.admission.admit(10)
    assert [old.budget.take_retry(1) for _ in range(4)] == [True, True, True, False]

    second = routed(table(route("digits", canary_bp=1, limits=Limits(1)), revision=2), first)
    new = second.route_of_model("digits")
    assert (new.admission.in_flight, new.admission.bytes) == (1, 10)
    assert new.admission.limits == Limits(1)
    assert not new.budget.take_retry(1)
    old.admission.release(10)
    assert new.admission.in_flight == 0


def test_a_route_by_another_name_begins_with_nothing() -> None:
    first = routed(table(route("digits")))
    first.route_of_model("digits").admission.admit(10)
    renamed = replace(route("digits"), name="numbers")
    second = routed(table(renamed, revision=2), first)
    assert second.route_of_model("digits").admission.in_flight == 0


def test_what_answers_say_in_common_is_written_anew_for_each_revision() -> None:
    first = routed(table(route("digits")))
    first.route_of_model("digits").stable.attempt_fields["b:1"] = b"old"
    second = routed(table(route("digits"), revision=2), first)
    assert second.route_of_model("digits").stable.attempt_fields == {}


def test_without_a_table_nothing_is_routed() -> None:
    assert NOTHING_ROUTED.route_of_method("a/b") is None
    with pytest.raises(NotFound):
        NOTHING_ROUTED.route_of_model("digits")
