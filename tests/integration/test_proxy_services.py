"""What goes by other rules than a model's name: other services, default routes, questions."""

from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as control
from coalmine.inference import inference_pb2 as oip
from coalmine_router.table import (
    Backend,
    Limits,
    Match,
    Route,
    RouteTable,
    Shadow,
    Sticky,
    Variant,
)
from tests.doubles.oip_backend import (
    READY,
    SERVICE,
    Answer,
    OipBackend,
    Seen,
    echo,
    failing,
    hanging,
    request_body,
)
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import (
    PIN_CANARY,
    REQUEST,
    assert_all_let_out,
    closed_port,
    ended,
    split_route,
    table_of,
)
from tests.doubles.waiting import eventually

OK = grpc.StatusCode.OK
ADD = "shop.Cart/Add"
# No message of the Open Inference Protocol, nor of any other.
BODY = b"\xff\xfe\x00anything"


def mirrored(seen: Seen) -> Answer:
    return Answer(seen.body[::-1])


def service_route(canary_bp: int = 0, *, method: str = "", **parts: Any) -> Route:
    return split_route(canary_bp, match=Match(service="shop.Cart", method=method), **parts)


def one(address: str, *routes: Route, limits: Limits | None = None) -> RouteTable:
    return table_of(address, address, *routes, limits=limits)


# ---------------------------------------------------------------- other services


async def test_a_call_of_another_service_goes_on_to_the_byte() -> None:
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, service_route(10_000))) as proxy,
    ):
        sent = (("x-user", "a"), ("x-user", "b"), ("k-bin", b"\xff"))
        seen = await ended(proxy.ask(ADD, BODY, metadata=sent))
        assert (seen.code, seen.body, seen.variant) == (OK, BODY[::-1], "canary")
        [got] = backend.seen
        assert (got.method, got.body) == (ADD, BODY)
        assert (got.values("x-user"), got.values("k-bin")) == (["a", "b"], [b"\xff"])
        assert len(got.values("traceparent")) == 1


async def test_a_call_of_another_service_is_reported_by_its_method() -> None:
    route = service_route(shadows=(Shadow("canary", 10_000),), copy_methods=("Add",))
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, route)) as proxy,
    ):
        await proxy.ask(ADD, BODY)
        [report] = proxy.reports
        assert (report.method, report.route, report.model) == (ADD, "digits", "")
        assert (report.variant, report.assignment) == ("stable", control.ASSIGNMENT_SPLIT)
        assert (report.request_body, report.response_body) == (BODY, BODY[::-1])
        assert [each.address for each in report.attempts] == [backend.address]


async def test_of_another_service_only_the_methods_that_are_named_are_copied() -> None:
    route = service_route(shadows=(Shadow("canary", 10_000),), copy_methods=("Add",))
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, route)) as proxy,
    ):
        for method in (ADD, "shop.Cart/Pay"):
            await proxy.ask(method, BODY)
        assert [list(each.shadows) for each in proxy.reports] == [["canary"], []]
        assert not proxy.reports[1].request_body


async def test_another_service_is_split_exactly() -> None:
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, service_route(2_500))) as proxy,
    ):
        drawn = Counter([(await ended(proxy.ask(ADD, BODY))).variant for _ in range(40)])
        assert drawn == {"stable": 30, "canary": 10}


async def test_another_service_is_sticky_by_metadata_and_can_be_pinned() -> None:
    route = service_route(5_000, sticky=Sticky("x-user"))
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, route)) as proxy,
    ):
        by_key = {
            key: {
                (await ended(proxy.ask(ADD, BODY, metadata=(("x-user", key),)))).variant
                for _ in range(4)
            }
            for key in "abcdefgh"
        }
        assert all(len(variants) == 1 for variants in by_key.values())
        assert len(set.union(*by_key.values())) == 2
        assert (await ended(proxy.ask(ADD, BODY, metadata=PIN_CANARY))).variant == "canary"


async def test_a_route_of_one_method_leaves_the_others_to_that_of_the_service() -> None:
    exact = Route(
        "adds",
        Match(service="shop.Cart", method="Add"),
        (Variant("stable", "green", weight_bp=10_000),),
    )
    async with (
        OipBackend(mirrored) as rest,
        OipBackend(mirrored) as adds,
        ProxyRig(table_of(rest.address, adds.address, service_route(), exact)) as proxy,
    ):
        await proxy.ask(ADD, BODY)
        await proxy.ask("shop.Cart/Remove", BODY)
        assert [each.method for each in adds.seen] == [ADD]
        assert [each.method for each in rest.seen] == ["shop.Cart/Remove"]
        assert [each.route for each in proxy.reports] == ["adds", "digits"]


@pytest.mark.parametrize(
    "method",
    ["shop.Cart/Remove", "shop.Carts/Add", "shop/Add", f"{SERVICE}/Nothing", "Add", "/Add"],
)
async def test_a_method_that_no_route_names_is_unimplemented(method: str) -> None:
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, service_route(method="Add"))) as proxy,
    ):
        assert (await ended(proxy.ask(method, BODY))).code is grpc.StatusCode.UNIMPLEMENTED
        assert not backend.seen


async def test_other_services_fall_back_and_are_limited_as_models_are() -> None:
    route = service_route(10_000, fallback=True, limits=Limits(bytes_max=len(BODY)))
    async with (
        OipBackend(mirrored) as stable,
        OipBackend(failing(grpc.StatusCode.UNAVAILABLE, "loading")) as canary,
        ProxyRig(table_of(stable.address, canary.address, route)) as proxy,
    ):
        seen = await ended(proxy.ask(ADD, BODY))
        assert (seen.code, seen.variant) == (OK, "stable")
        assert proxy.reports[0].chosen == "canary"

        larger = await ended(proxy.ask(ADD, BODY * 2))
        assert (larger.code, larger.is_routers) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert proxy.reports[1].turned_away == "bytes"
        await assert_all_let_out(proxy)


async def test_a_proxy_that_is_ending_turns_other_services_away_too() -> None:
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, service_route())) as proxy,
    ):
        proxy.plane.refuse()
        seen = await ended(proxy.ask(ADD, BODY))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_a_service_that_a_new_table_routes_is_found_at_once() -> None:
    async with (
        OipBackend(mirrored) as backend,
        ProxyRig(one(backend.address, split_route(0))) as proxy,
    ):
        assert (await ended(proxy.ask(ADD, BODY))).code is grpc.StatusCode.UNIMPLEMENTED
        await proxy.use_access(one(backend.address, service_route()))
        assert (await ended(proxy.ask(ADD, BODY))).code is OK


# ---------------------------------------------------------------- the default route


def default_route(canary_bp: int = 0, **parts: Any) -> Route:
    return split_route(canary_bp, match=Match(is_default=True), **parts)


async def test_a_default_route_answers_for_models_of_no_route_by_the_name_they_have() -> None:
    variants = (Variant("stable", "blue", weight_bp=10_000),)
    rest = Route("rest", Match(is_default=True), variants)
    async with (
        OipBackend() as backend,
        ProxyRig(one(backend.address, split_route(0), rest)) as proxy,
    ):
        for name in ("faces", "digits", "plates"):
            await proxy.infer(request_body(name, version="9"))
        assert [each.infer.model_name for each in backend.seen] == ["faces", "digits", "plates"]
        assert [each.infer.model_version for each in backend.seen] == ["9", "1", "9"]
        assert [(each.route, each.model) for each in proxy.reports] == [
            ("rest", "faces"),
            ("digits", "digits"),
            ("rest", "plates"),
        ]


async def test_whether_a_model_is_ready_is_asked_through_a_default_route() -> None:
    def only_faces(seen: Seen) -> Answer:
        asked = oip.ModelReadyRequest.FromString(seen.body)
        return Answer(oip.ModelReadyResponse(ready=asked.name == "faces").SerializeToString())

    variants = (Variant("stable", "blue", weight_bp=10_000),)
    rest = Route("rest", Match(is_default=True), variants)
    async with (
        OipBackend(only_faces) as backend,
        ProxyRig(one(backend.address, rest)) as proxy,
    ):
        for name, ready in (("faces", True), ("plates", False)):
            asked = oip.ModelReadyRequest(name=name).SerializeToString()
            answer = oip.ModelReadyResponse.FromString(await proxy.ask(READY, asked))
            assert answer.ready == ready
        assert len(backend.seen) == 2
        assert not proxy.reports


async def test_a_question_goes_on_in_its_callers_trace() -> None:
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    async with (
        OipBackend(echo) as backend,
        ProxyRig(one(backend.address, split_route(0))) as proxy,
    ):
        asked = oip.ModelReadyRequest(name="digits").SerializeToString()
        await ended(proxy.ask(READY, asked, metadata=(("traceparent", traceparent),)))
        await ended(proxy.ask(READY, asked))
        assert [each.values("traceparent") for each in backend.seen] == [[traceparent], []]


async def test_a_question_is_pinned_only_where_requests_can_be() -> None:
    async with (
        OipBackend(echo) as backend,
        ProxyRig(one(backend.address, split_route(0, pinning=False))) as proxy,
    ):
        asked = oip.ModelReadyRequest(name="digits").SerializeToString()
        seen = await ended(proxy.ask(READY, asked, metadata=PIN_CANARY))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert not backend.seen


async def test_questions_of_a_default_route_can_be_pinned() -> None:
    async with (
        OipBackend(echo) as backend,
        ProxyRig(one(backend.address, default_route())) as proxy,
    ):
        asked = oip.ModelReadyRequest(name="faces").SerializeToString()
        seen = await ended(proxy.ask(READY, asked, metadata=PIN_CANARY))
        assert seen.variant == "canary"
        assert oip.ModelReadyRequest.FromString(backend.seen[0].body).name == "digits-next"


# ---------------------------------------------------------------- whose word it is


async def test_a_deadline_that_passes_here_is_the_routers_word() -> None:
    async with (
        OipBackend(hanging()) as backend,
        ProxyRig(one(backend.address, split_route(0, timeout_ns=2 * 10**8))) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST, timeout=None))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
        assert seen.message == "variant 'stable': backend 'blue' did not answer in 0.2 s"
        [report] = proxy.reports
        assert (report.status_code, report.origin_router) == (4, True)


async def test_a_deadline_that_the_backend_tells_of_is_the_backends_word() -> None:
    late = failing(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed in the queue")
    async with (
        OipBackend(late) as backend,
        ProxyRig(one(backend.address, split_route(0))) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.DEADLINE_EXCEEDED, False)
        assert seen.message == "the deadline passed in the queue"


async def test_an_answer_too_large_to_be_taken_is_the_routers_word() -> None:
    huge = Answer(bytes(65 * 1024 * 1024))
    options = [("grpc.max_send_message_length", -1)]
    async with (
        OipBackend(lambda _: huge, options=options) as backend,
        ProxyRig(one(backend.address, split_route(0))) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST, timeout=30))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert seen.message == (
            "variant 'stable': backend 'blue': "
            "Received message larger than max (68157440 vs. 67108864)"
        )
        await assert_all_let_out(proxy)


async def test_a_full_backend_is_not_the_routers_word() -> None:
    full = failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
    async with (
        OipBackend(full) as backend,
        ProxyRig(one(backend.address, split_route(0))) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.RESOURCE_EXHAUSTED, False)
        assert proxy.reports[0].turned_away == ""


@pytest.mark.parametrize("code", [OK, grpc.StatusCode.ABORTED])
async def test_a_backend_cannot_speak_in_the_routers_name(code: grpc.StatusCode) -> None:
    forged = (
        ("x-coalmine-origin", "router"),
        ("x-coalmine-variant", "canary"),
        ("x-coalmine-revision", "999"),
        ("x-coalmine-anything", "1"),
        ("x-else", "1"),
    )
    answer = Answer(code=code, initial=forged, trailing=forged)
    async with (
        OipBackend(lambda _: answer) as backend,
        ProxyRig(one(backend.address, split_route(0))) as proxy,
    ):
        call = proxy.infer(REQUEST)
        seen = await ended(call)
        assert not seen.is_routers
        assert (seen.variant, seen.trailing["x-coalmine-revision"]) == ("stable", "3")
        assert "x-coalmine-anything" not in seen.trailing
        assert seen.trailing["x-else"] == "1"
        assert [key for key, _ in await call.initial_metadata() if key.startswith("x-")] == [
            "x-else"
        ]


async def test_a_backend_out_of_reach_is_the_routers_word_for_questions_too() -> None:
    async with ProxyRig(one(closed_port(), split_route(0))) as proxy:
        asked = oip.ModelReadyRequest(name="digits").SerializeToString()
        seen = await ended(proxy.ask(READY, asked))
        assert (seen.code, seen.is_routers) == (grpc.StatusCode.UNAVAILABLE, True)
        assert "variant 'stable': backend 'blue'" in seen.message


# ---------------------------------------------------------------- what a backend is shown


async def test_a_backend_is_shown_the_routers_token_by_every_kind_of_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("router-secret\n")
    async with OipBackend() as backend:
        backends = (
            Backend("blue", (backend.address,), token_file=str(file)),
            Backend("green", (backend.address,)),
        )
        other = Route(
            "shop",
            Match(service="shop.Cart"),
            (Variant("stable", "blue", weight_bp=10_000), Variant("canary", "green")),
        )
        async with ProxyRig(RouteTable(3, backends, (split_route(0), other))) as proxy:
            asked = oip.ModelReadyRequest(name="digits").SerializeToString()
            own = (("authorization", "Bearer callers-own"),)
            await ended(proxy.infer(REQUEST, metadata=own))
            await ended(proxy.ask(READY, asked, metadata=own))
            await ended(proxy.ask(ADD, BODY, metadata=own))
            await ended(proxy.infer(REQUEST, metadata=(*PIN_CANARY, *own)))
            shown = [each.values("authorization") for each in backend.seen]
            assert shown == [["Bearer router-secret"]] * 3 + [["Bearer callers-own"]]


async def test_a_copys_metadata_does_not_hold_the_routers_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("router-secret")
    async with OipBackend() as backend:
        backends = (
            Backend("blue", (backend.address,), token_file=str(file)),
            Backend("green", (backend.address,)),
        )
        route = split_route(0, shadows=(Shadow("canary", 10_000),))
        async with ProxyRig(RouteTable(3, backends, (route,))) as proxy:
            await proxy.infer(REQUEST, metadata=(("x-user", "ann"),))
            await eventually(lambda: bool(proxy.reports))
            [report] = proxy.reports
            assert [each.key for each in report.metadata] == ["x-user"]
            assert b"router-secret" not in report.SerializeToString()
