"""Changes over a real socket: what is answered, what is refused, what the history says."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import inference_pb2 as oip
from tests.doubles.control_rig import ControlRig, router_config
from tests.doubles.oip_backend import READY, Answer, OipBackend, Seen, echo
from tests.doubles.proxy import FollowingProxy


@pytest.fixture
async def backend() -> AsyncIterator[OipBackend]:
    async with OipBackend() as backend:
        yield backend


@pytest.fixture
async def rig(tmp_path: Path, backend: OipBackend) -> AsyncIterator[ControlRig]:
    async with ControlRig(router_config(tmp_path, backend.address)) as rig:
        yield rig


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def not_ready(seen: Seen) -> Answer:
    if seen.method == READY:
        return Answer(oip.ModelReadyResponse(ready=False).SerializeToString())
    return echo(seen)


# ---------------------------------------------------------------- what is answered


async def test_a_change_is_answered_with_the_new_split_and_its_revision(rig: ControlRig) -> None:
    answer = await rig.set_weights(canary=1_000)

    assert {each.name: each.weight_bp for each in answer.route.variants} == {
        "stable": 9_000,
        "canary": 1_000,
        "int8": 0,
    }
    assert answer.revision == rig.table().revision == 2
    assert (answer.proxies_current, answer.proxies) == (0, 0)


async def test_an_unchanged_split_gets_no_new_revision_and_no_history(rig: ControlRig) -> None:
    first = await rig.set_weights(canary=1_000)
    again = await rig.set_weights(canary=1_000, stable=9_000)

    history = await rig.stub.GetHistory(pb.GetHistoryRequest(route="digits"))
    assert again.revision == first.revision
    assert [each.revision for each in history.changes] == [2, 1]


async def test_the_history_says_who_when_why_from_and_to_newest_first(rig: ControlRig) -> None:
    began_ns = time.time_ns()
    await rig.stub.SetWeights(
        pb.SetWeightsRequest(
            route="digits", weights_bp={"canary": 500}, actor="ada@host", reason="first step"
        )
    )
    await rig.stub.SetShadow(pb.SetShadowRequest(route="digits", variant="int8", share_bp=2_500))

    history = await rig.stub.GetHistory(pb.GetHistoryRequest(route="digits"))
    shadow, weights, configured = history.changes
    assert (shadow.action, weights.action, configured.action) == (
        "shadow",
        "weights",
        "configured",
    )
    assert (weights.actor, weights.reason) == ("ada@host", "first step")
    assert shadow.actor.startswith("127.0.0.1:")
    assert began_ns <= weights.at_ns <= shadow.at_ns <= time.time_ns()
    assert dict(weights.before.weights_bp) == {"stable": 10_000, "canary": 0, "int8": 0}
    assert dict(weights.after.weights_bp) == {"stable": 9_500, "canary": 500, "int8": 0}
    assert dict(shadow.after.shadows_bp) == {"int8": 2_500}


async def test_a_shadow_at_zero_is_off(rig: ControlRig) -> None:
    await rig.stub.SetShadow(pb.SetShadowRequest(route="digits", variant="int8", share_bp=100))
    answer = await rig.stub.SetShadow(pb.SetShadowRequest(route="digits", variant="int8"))

    assert not answer.route.shadows


# ---------------------------------------------------------------- what is refused


async def test_an_unknown_route_or_variant_is_not_found_and_the_known_are_named(
    rig: ControlRig,
) -> None:
    request = pb.SetWeightsRequest(route="digits", weights_bp={"canray": 1})
    assert await refusal(rig.stub.SetWeights(request)) == (
        grpc.StatusCode.NOT_FOUND,
        "route 'digits' has no variant 'canray', only stable, canary, int8",
    )
    request = pb.SetWeightsRequest(route="digit", weights_bp={"canary": 1})
    assert await refusal(rig.stub.SetWeights(request)) == (
        grpc.StatusCode.NOT_FOUND,
        "no route 'digit', only digits",
    )


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (pb.SetWeightsRequest(route="digits", weights_bp={"canary": 10_001}), "add up to 100.01%"),
        (
            pb.SetWeightsRequest(route="digits", weights_bp={"canary": 6_000, "int8": 5_000}),
            "add up to 110%",
        ),
        (
            pb.SetWeightsRequest(route="digits", weights_bp={"canary": 10, "stable": 10}),
            "weights add up to 0.2%, expected 100%",
        ),
        (pb.SetWeightsRequest(route="digits"), "weights_bp: expected one variant"),
        (pb.SetWeightsRequest(weights_bp={"canary": 1}), "route: missing"),
        (
            pb.SetWeightsRequest(route="digits", weights_bp={"canary": 1}, reason="x" * 1_001),
            "reason: at most 1000 characters, got 1001",
        ),
        (
            pb.SetWeightsRequest(route="digits", weights_bp={"canary": 1}, reason="two\nlines"),
            "reason: expected one line",
        ),
        (
            pb.SetWeightsRequest(route="digits", weights_bp={"canary": 1}, actor="a" * 129),
            "actor: at most 128",
        ),
    ],
)
async def test_a_wrong_request_is_invalid_and_changes_nothing(
    rig: ControlRig, request_: pb.SetWeightsRequest, said: str
) -> None:
    code, details = await refusal(rig.stub.SetWeights(request_))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert said in details
    assert rig.table().revision == 1


async def test_a_shadow_of_more_than_all_requests_is_invalid(rig: ControlRig) -> None:
    request = pb.SetShadowRequest(route="digits", variant="int8", share_bp=10_001)

    code, _ = await refusal(rig.stub.SetShadow(request))

    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stale_revision_aborts_the_change(rig: ControlRig) -> None:
    await rig.set_weights(canary=100)
    request = pb.SetWeightsRequest(route="digits", weights_bp={"canary": 200}, expect_revision=1)

    assert await refusal(rig.stub.SetWeights(request)) == (
        grpc.StatusCode.ABORTED,
        "route 'digits' is at revision 2, not 1",
    )


async def test_of_two_changes_that_expect_the_same_revision_one_wins(rig: ControlRig) -> None:
    async def change(weight_bp: int) -> str:
        request = pb.SetWeightsRequest(
            route="digits", weights_bp={"canary": weight_bp}, expect_revision=1
        )
        try:
            return (await rig.stub.SetWeights(request)).route.name
        except grpc.aio.AioRpcError as error:
            return error.code().name

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(change(weight_bp)) for weight_bp in (100, 200)]

    assert sorted(each.result() for each in both) == ["ABORTED", "digits"]
    assert rig.table().revision == 2


# ---------------------------------------------------------------- readiness


async def test_a_variant_that_is_not_ready_gains_nothing_and_may_lose_all(
    rig: ControlRig, backend: OipBackend
) -> None:
    await rig.set_weights(canary=5_000)
    backend.script = not_ready
    request = pb.SetWeightsRequest(route="digits", weights_bp={"canary": 5_001})

    code, details = await refusal(rig.stub.SetWeights(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details == (
        "route 'digits': variant 'canary' is not ready: "
        f"model 'digits' version 2 is not ready on {backend.address}"
    )
    assert (await rig.set_weights(canary=4_000)).revision == 3
    assert (await rig.set_weights(canary=0)).revision == 4


async def test_a_shadow_is_switched_on_only_where_it_is_ready(
    rig: ControlRig, backend: OipBackend
) -> None:
    request = pb.SetShadowRequest(route="digits", variant="int8", share_bp=100)
    await rig.stub.SetShadow(request)
    backend.script = not_ready

    assert not (
        await rig.stub.SetShadow(pb.SetShadowRequest(route="digits", variant="int8"))
    ).route.shadows
    code, details = await refusal(rig.stub.SetShadow(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "model 'digits-int8' is not ready" in details


async def test_an_abort_passes_while_a_change_waits_for_a_dead_backend(
    tmp_path: Path, backend: OipBackend
) -> None:
    hangs = asyncio.Event()

    def script(seen: Seen) -> Answer:
        answer = echo(seen)
        return Answer(answer.body, until=hangs if b"int8" in seen.body else None)

    backend.script = script
    async with ControlRig(router_config(tmp_path, backend.address)) as rig:
        await rig.set_weights(canary=5_000)
        stuck = rig.set_weights(int8=100)
        async with asyncio.TaskGroup() as group:
            refused = group.create_task(refusal(stuck))
            # The first question is the background's, the second the change's.
            while sum(b"int8" in seen.body for seen in backend.seen) < 2:
                await backend.wait_seen(len(backend.seen) + 1)
            began = time.monotonic()
            await rig.set_weights(canary=0)
            took_s = time.monotonic() - began
        code, details = refused.result()

    assert took_s < 1.0
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "DEADLINE_EXCEEDED" in details


async def test_a_backend_that_just_came_back_is_waited_for(
    rig: ControlRig, backend: OipBackend
) -> None:
    await backend.stop()
    request = pb.SetWeightsRequest(route="digits", weights_bp={"canary": 1})
    code, details = await refusal(rig.stub.SetWeights(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"{backend.address}: no connection" in details

    await backend.start()

    assert (await rig.set_weights(canary=1)).revision == 2


# ---------------------------------------------------------------- acknowledgement


async def test_the_answer_counts_the_proxies_that_serve_by_the_change(rig: ControlRig) -> None:
    proxies = [FollowingProxy(f"p{number}") for number in range(3)]
    for proxy in proxies:
        rig.follow(proxy)
        await proxy.serves(1)
    answer = await rig.set_weights(canary=100)

    assert (answer.proxies_current, answer.proxies) == (3, 3)
    assert {proxy.revision for proxy in proxies} == {answer.revision}


async def test_a_proxy_that_says_nothing_delays_the_answer_by_a_second_and_is_reported(
    rig: ControlRig,
) -> None:
    quick, silent = FollowingProxy("quick"), FollowingProxy("silent", answers=False)
    for proxy in (quick, silent):
        rig.follow(proxy)
        await proxy.serves(1)
    began = time.monotonic()
    answer = await rig.set_weights(canary=100)
    took_s = time.monotonic() - began

    status = await rig.stub.GetRoute(pb.GetRouteRequest(route="digits"))
    assert (answer.proxies_current, answer.proxies) == (1, 2)
    assert 0.9 < took_s < 2.0
    assert {each.proxy_id: each.revision for each in status.proxies} == {"quick": 2, "silent": 0}


async def test_a_proxy_that_refuses_is_not_waited_for_and_says_why(rig: ControlRig) -> None:
    refusing = FollowingProxy("p", refuses="too new")
    rig.follow(refusing)
    await refusing.serves(1)
    began = time.monotonic()
    answer = await rig.set_weights(canary=100)
    took_s = time.monotonic() - began

    status = await rig.stub.GetRoute(pb.GetRouteRequest(route="digits"))
    assert (answer.proxies_current, answer.proxies) == (0, 1)
    assert took_s < 0.9
    assert [each.refused for each in status.proxies] == ["too new"]


async def test_a_callers_short_deadline_still_gets_the_answer(rig: ControlRig) -> None:
    silent = FollowingProxy("silent", answers=False)
    rig.follow(silent)
    await silent.serves(1)
    request = pb.SetWeightsRequest(route="digits", weights_bp={"canary": 100})

    assert (await rig.stub.SetWeights(request, timeout=0.6)).revision == 2


async def test_of_a_thousand_changes_all_are_acknowledged_and_the_last_is_everywhere(
    rig: ControlRig,
) -> None:
    proxies = [FollowingProxy(f"p{number}") for number in range(3)]
    for proxy in proxies:
        rig.follow(proxy)
        await proxy.serves(1)
    for number in range(1_000):
        answer = await rig.set_weights(canary=number % 100 + 1)
        assert (answer.revision, answer.proxies_current) == (number + 2, 3)

    assert {proxy.tables[-1].SerializeToString() for proxy in proxies} == {
        proxies[0].tables[-1].SerializeToString()
    }
    assert {proxy.revision for proxy in proxies} == {1_001}
