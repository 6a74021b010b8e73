"""Requests through the data plane, over real sockets: what is passed on, what comes back."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.baggage import set_baggage
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from coalmine.inference import inference_pb2 as oip
from coalmine_router.backends.intervals import Intervals
from coalmine_router.channels import COPY_BYTES_MAX
from coalmine_router.proxy.forward import Attempt, forward
from coalmine_router.table import (
    Backend,
    BackendTls,
    Match,
    Route,
    RouteTable,
    Shadow,
    Sticky,
    Variant,
)
from tests.doubles.certificates import EXPIRED, Authority
from tests.doubles.oip_backend import (
    INFER,
    Answer,
    OipBackend,
    Seen,
    answering,
    failing,
    hanging,
    request_body,
    response_body,
)
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import closed_port
from tests.doubles.tls_server import TlsServer

PIXELS = np.ones((1, 4), np.float32)
REQUEST = request_body("digits", pixels=PIXELS)
SERVICE = "inference.GRPCInferenceService"


def table(
    address: str,
    canary: str = "",
    *,
    weight_bp: int = 0,
    shadows: tuple[Shadow, ...] = (),
    sticky: str = "",
    pinning: bool = True,
    timeout_s: float = 10.0,
    revision: int = 3,
) -> RouteTable:
    variants = (
        Variant("stable", "blue", version="1", weight_bp=10_000 - weight_bp),
        Variant("canary", "green", model="digits-next", version="2", weight_bp=weight_bp),
    )
    route = Route(
        "digits",
        Match("digits"),
        variants,
        shadows,
        Sticky(sticky),
        int(timeout_s * 1e9),
        pinning=pinning,
    )
    backends = (Backend("blue", (address,)), Backend("green", (canary or address,)))
    return RouteTable(revision, backends, (route,))


async def failure(
    call: grpc.aio.UnaryUnaryCall[bytes, bytes],
) -> tuple[grpc.StatusCode, str, dict[str, str | bytes]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    return error.code(), error.details() or "", dict(error.trailing_metadata())


async def test_shares_are_exact_over_a_block_and_every_answer_names_its_variant() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address, weight_bp=1_000)) as proxy:
        seen: Counter[str] = Counter()
        for _ in range(200):
            call = proxy.infer(REQUEST)
            await call
            trailing = dict(await call.trailing_metadata())
            seen[str(trailing["x-coalmine-variant"])] += 1
            assert trailing["x-coalmine-revision"] == "3"
        assert seen == {"stable": 180, "canary": 20}


async def test_a_variants_model_and_version_replace_the_callers() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address, weight_bp=10_000)) as proxy:
        await proxy.infer(request_body("digits", version="9", request_id="r", pixels=PIXELS))
        got = backend.seen[0].infer
        assert (got.model_name, got.model_version, got.id) == ("digits-next", "2", "r")
        assert got.raw_input_contents[0] == PIXELS.tobytes()


async def test_metadata_travels_on_except_what_belongs_to_a_hop() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        sent = (("x-user", "a"), ("x-user", "b"), ("blob-bin", b"\x00\xff"))
        await proxy.infer(REQUEST, metadata=sent)
        seen = backend.seen[0]
        assert seen.values("x-user") == ["a", "b"]
        assert seen.values("blob-bin") == [b"\x00\xff"]
        assert len(seen.values("user-agent")) == 1


async def test_the_trace_continues_from_the_caller_through_the_router() -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        headers = (("traceparent", f"00-{trace_id}-{span_id}-00"), ("tracestate", "a=1"))
        await proxy.infer(REQUEST, metadata=headers)
        [passed] = backend.seen[0].values("traceparent")
        report = proxy.reports[0]
        assert passed == f"00-{trace_id}-{report.attempts[0].span_id.hex()}-00"
        assert backend.seen[0].values("tracestate") == ["a=1"]
        assert (report.trace_id.hex(), report.parent_span_id.hex()) == (trace_id, span_id)
        assert not report.sampled


async def test_a_caller_without_a_trace_begins_one() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        await proxy.infer(REQUEST)
        await proxy.infer(REQUEST)
        first, second = proxy.reports
        assert first.trace_id != second.trace_id
        assert len(first.trace_id) == 16
        assert first.sampled
        assert not first.parent_span_id


async def test_the_backends_metadata_and_status_come_back_as_they_were() -> None:
    answer = Answer(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        message="input 'pixels' is wrong",
        trailing=(("x-why", "shape"), ("grpc-status-details-bin", b"\x08\x03")),
    )
    async with OipBackend(lambda _: answer) as backend, ProxyRig(table(backend.address)) as proxy:
        code, message, trailing = await failure(proxy.infer(REQUEST))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message == "input 'pixels' is wrong"
        assert trailing["x-why"] == "shape"
        assert trailing["grpc-status-details-bin"] == b"\x08\x03"
        assert trailing["x-coalmine-variant"] == "stable"
        assert "x-coalmine-origin" not in trailing


async def test_initial_and_trailing_metadata_of_an_answer_come_back() -> None:
    body = response_body(logits=PIXELS)
    answer = Answer(body, initial=(("x-first", "1"),), trailing=(("x-last-bin", b"\x01"),))
    async with OipBackend(lambda _: answer) as backend, ProxyRig(table(backend.address)) as proxy:
        call = proxy.infer(REQUEST)
        assert await call == body
        assert dict(await call.initial_metadata())["x-first"] == "1"
        assert dict(await call.trailing_metadata())["x-last-bin"] == b"\x01"


async def test_a_backend_that_is_down_is_the_routers_own_error() -> None:
    async with ProxyRig(table(closed_port())) as proxy:
        code, message, trailing = await failure(proxy.infer(REQUEST))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "variant 'stable': backend 'blue' is out of reach" in message
        assert trailing["x-coalmine-origin"] == "router"
        assert trailing["x-coalmine-variant"] == "stable"
        assert proxy.reports[0].origin_router


async def test_a_caller_hears_in_plain_words_that_a_backends_certificate_is_wrong(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "trusted")
    tls = BackendTls(ca=str(authority.ca), server_name="localhost")
    for pair, words in (
        (authority.pair("old", "localhost", times=EXPIRED), "its certificate has expired"),
        (authority.pair("other", "other", host="other"), "its certificate is for another name"),
        (Authority(tmp_path / "foreign").server(), "its certificate is of another authority"),
    ):
        async with TlsServer(pair) as backend:
            of = table(backend.address)
            blue = Backend("blue", (backend.address,), tls)
            async with ProxyRig(replace(of, backends=(blue, of.backends[1]))) as proxy:
                code, message, trailing = await failure(proxy.infer(REQUEST))
        assert (code, trailing["x-coalmine-origin"]) == (grpc.StatusCode.UNAVAILABLE, "router")
        assert message.startswith(f"variant 'stable': backend 'blue' is out of reach: {words}")


async def test_a_backend_that_comes_back_is_found_again() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        await proxy.infer(REQUEST)
        await backend.stop()
        code, _, trailing = await failure(proxy.infer(REQUEST))
        assert (code, trailing["x-coalmine-origin"]) == (grpc.StatusCode.UNAVAILABLE, "router")
        await backend.start()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await proxy.infer(REQUEST)
                    break


async def test_unavailable_said_by_the_backend_is_not_the_routers_error() -> None:
    script = failing(grpc.StatusCode.UNAVAILABLE, "model 'digits' is loading")
    async with OipBackend(script) as backend, ProxyRig(table(backend.address)) as proxy:
        code, message, trailing = await failure(proxy.infer(REQUEST))
        assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "model 'digits' is loading")
        assert "x-coalmine-origin" not in trailing


async def test_a_backend_that_gives_a_call_up_is_unavailable_and_not_a_callers_cancel() -> None:
    script = failing(grpc.StatusCode.CANCELLED, "shutting down")
    async with OipBackend(script) as backend, ProxyRig(table(backend.address)) as proxy:
        code, message, trailing = await failure(proxy.infer(REQUEST))
        assert (code, trailing["x-coalmine-origin"]) == (grpc.StatusCode.UNAVAILABLE, "router")
        assert "backend 'blue' ended the call: shutting down" in message


async def test_the_backend_gets_the_time_that_is_left() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        await proxy.infer(REQUEST, timeout=5.0)
        remaining = backend.seen[0].time_remaining_s
        assert remaining is not None
        assert 4.0 < remaining < 6.0


async def test_a_caller_without_a_deadline_gets_the_routes() -> None:
    async with (
        OipBackend(hanging()) as backend,
        ProxyRig(table(backend.address, timeout_s=0.2)) as proxy,
    ):
        code, _, _ = await failure(proxy.infer(REQUEST, timeout=None))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await backend.wait_cancelled(1)


async def test_a_cancelled_caller_cancels_the_backends_call() -> None:
    async with OipBackend(hanging()) as backend, ProxyRig(table(backend.address)) as proxy:
        call = proxy.infer(REQUEST)
        await backend.wait_seen(1)
        call.cancel()
        await backend.wait_cancelled(1)
        async with asyncio.timeout(5):
            while not proxy.reports:
                await asyncio.sleep(0)
        assert proxy.reports[0].status_code == grpc.StatusCode.CANCELLED.value[0]


async def test_large_messages_pass_both_ways() -> None:
    blob = np.zeros((1, 5_000_000), np.float32)
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        answer = oip.ModelInferResponse.FromString(
            await proxy.infer(request_body("digits", pixels=blob), timeout=30)
        )
        assert len(answer.raw_output_contents[0]) == blob.nbytes


async def test_a_pin_chooses_the_variant_for_this_call_alone() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        call = proxy.infer(REQUEST, metadata=(("x-coalmine-variant", "canary"),))
        await call
        assert dict(await call.trailing_metadata())["x-coalmine-variant"] == "canary"
        assert backend.seen[0].infer.model_version == "2"


@pytest.mark.parametrize(
    ("pinning", "pin", "code"),
    [
        (True, "nobody", grpc.StatusCode.NOT_FOUND),
        (False, "canary", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_pin_that_cannot_be_is_refused_and_reaches_no_backend(
    pinning: bool, pin: str, code: grpc.StatusCode
) -> None:
    async with (
        OipBackend() as backend,
        ProxyRig(table(backend.address, pinning=pinning)) as proxy,
    ):
        got, _, trailing = await failure(
            proxy.infer(REQUEST, metadata=(("x-coalmine-variant", pin),))
        )
        assert (got, trailing["x-coalmine-origin"]) == (code, "router")
        assert not backend.seen


async def test_a_sticky_key_stays_with_its_variant() -> None:
    async with OipBackend() as backend:
        routed = table(backend.address, weight_bp=5_000, sticky="x-user-id")
        async with ProxyRig(routed) as proxy:
            for _ in range(8):
                await proxy.infer(REQUEST, metadata=(("x-user-id", "ann"),))
            assert len({seen.infer.model_version for seen in backend.seen}) == 1


@pytest.mark.parametrize(
    ("body", "code", "model"),
    [
        (request_body("nobody"), grpc.StatusCode.NOT_FOUND, "nobody"),
        (b"", grpc.StatusCode.NOT_FOUND, ""),
        (b"\x0a\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, ""),
    ],
)
async def test_a_request_no_route_matches_is_refused_by_the_router(
    body: bytes, code: grpc.StatusCode, model: str
) -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        got, _, trailing = await failure(proxy.infer(body))
        assert (got, trailing["x-coalmine-origin"]) == (code, "router")
        assert not backend.seen
        assert (proxy.reports[0].route, proxy.reports[0].model) == ("", model)


async def test_before_there_is_a_table_callers_are_told_to_come_back() -> None:
    async with ProxyRig(None) as proxy:
        code, message, trailing = await failure(proxy.infer(REQUEST))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "no route table yet" in message
        assert trailing["x-coalmine-origin"] == "router"


async def test_a_copied_request_is_reported_with_both_bodies_and_its_metadata() -> None:
    shadows = (Shadow("canary", 10_000),)
    async with (
        OipBackend(answering(logits=PIXELS)) as backend,
        ProxyRig(table(backend.address, shadows=shadows)) as proxy,
    ):
        answer = await proxy.infer(REQUEST, metadata=(("x-user", "a"),))
        report = proxy.reports[0]
        assert list(report.shadows) == ["canary"]
        assert (report.request_body, report.response_body) == (REQUEST, answer)
        assert ("x-user", b"a") in [(each.key, each.value) for each in report.metadata]
        assert len(backend.seen) == 1


async def test_a_request_that_nobody_copies_is_reported_without_bodies() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        await proxy.infer(REQUEST)
        report = proxy.reports[0]
        assert not report.request_body
        assert not report.response_body
        assert report.request_bytes == len(REQUEST)
        assert report.attempts[0].address == backend.address


async def test_bodies_are_not_copied_where_the_primary_failed_or_they_are_too_large() -> None:
    shadows = (Shadow("canary", 10_000),)
    huge = Answer(bytes(COPY_BYTES_MAX))
    async with OipBackend() as backend, ProxyRig(table(backend.address, shadows=shadows)) as proxy:
        backend.script = failing(grpc.StatusCode.INTERNAL)
        await failure(proxy.infer(REQUEST))
        backend.script = lambda _: huge
        await proxy.infer(REQUEST, timeout=30)
        assert [each.uncopied for each in proxy.reports] == ["primary_failed", "too_large"]
        assert not any(each.response_body for each in proxy.reports)


async def test_what_a_variant_refused_is_copied_with_its_status() -> None:
    shadows = (Shadow("canary", 10_000),)
    async with OipBackend() as backend, ProxyRig(table(backend.address, shadows=shadows)) as proxy:
        backend.script = failing(grpc.StatusCode.INVALID_ARGUMENT)
        await failure(proxy.infer(REQUEST))
        [report] = proxy.reports
        assert (report.uncopied, report.status_code) == ("", 3)
        assert report.request_body == REQUEST


async def test_a_variant_is_no_shadow_of_its_own_answer() -> None:
    shadows = (Shadow("canary", 10_000),)
    async with (
        OipBackend() as backend,
        ProxyRig(table(backend.address, weight_bp=10_000, shadows=shadows)) as proxy,
    ):
        await proxy.infer(REQUEST)
        assert proxy.reports[0].variant == "canary"
        assert not proxy.reports[0].shadows


async def test_a_change_does_not_touch_the_requests_in_flight() -> None:
    released = asyncio.Event()

    def script(seen: Seen) -> Answer:
        return Answer(until=released) if seen.method == INFER else Answer()

    async with OipBackend(script) as backend, ProxyRig(table(backend.address)) as proxy:
        call = proxy.infer(REQUEST)
        await backend.wait_seen(1)
        proxy.swap(table(backend.address, weight_bp=10_000, revision=4))
        released.set()
        await call
        assert dict(await call.trailing_metadata())["x-coalmine-revision"] == "3"


async def test_questions_about_a_model_go_to_stable_unless_pinned() -> None:
    def script(seen: Seen) -> Answer:
        asked = oip.ModelMetadataRequest.FromString(seen.body)
        return Answer(oip.ModelMetadataResponse(name=asked.name).SerializeToString())

    question = oip.ModelMetadataRequest(name="digits").SerializeToString()
    async with OipBackend(script) as backend, ProxyRig(table(backend.address)) as proxy:
        method = f"{SERVICE}/ModelMetadata"
        stable = oip.ModelMetadataResponse.FromString(await proxy.ask(method, question))
        pinned = await proxy.ask(method, question, metadata=(("x-coalmine-variant", "canary"),))
        assert stable.name == "digits"
        assert oip.ModelMetadataResponse.FromString(pinned).name == "digits-next"
        assert not proxy.reports


async def test_the_router_answers_for_itself() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        live = await proxy.ask(f"{SERVICE}/ServerLive", b"")
        ready = await proxy.ask(f"{SERVICE}/ServerReady", b"")
        about = await proxy.ask(f"{SERVICE}/ServerMetadata", b"")
        unknown = oip.ModelReadyRequest(name="nobody").SerializeToString()
        model = await proxy.ask(f"{SERVICE}/ModelReady", unknown)
        assert oip.ServerLiveResponse.FromString(live).live
        assert oip.ServerReadyResponse.FromString(ready).ready
        assert oip.ServerMetadataResponse.FromString(about).name == "coalmine-router"
        assert not oip.ModelReadyResponse.FromString(model).ready
        assert not backend.seen


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad"])
async def test_what_only_a_server_can_do_is_not_offered(method: str) -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        code, message, _ = await failure(proxy.ask(f"{SERVICE}/{method}", b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "ask the inference server" in message


async def test_a_proxy_that_is_ending_turns_new_requests_away_and_finishes_the_others() -> None:
    released = asyncio.Event()
    async with (
        OipBackend(lambda _: Answer(until=released)) as backend,
        ProxyRig(table(backend.address)) as proxy,
    ):
        first = proxy.infer(REQUEST)
        await backend.wait_seen(1)
        proxy.plane.refuse()
        code, _, trailing = await failure(proxy.infer(REQUEST))
        assert (code, trailing["x-coalmine-origin"]) == (grpc.StatusCode.UNAVAILABLE, "router")
        released.set()
        await first


async def test_a_question_that_is_malformed_is_refused_like_a_request() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        code, _, trailing = await failure(proxy.ask(f"{SERVICE}/ModelReady", b"\x0a\xff\xff"))
        assert (code, trailing["x-coalmine-origin"]) == (grpc.StatusCode.INVALID_ARGUMENT, "router")


async def test_an_unexpected_error_is_internal_and_its_text_stays_here() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        del proxy.plane._sampler
        code, message, trailing = await failure(proxy.infer(REQUEST))
        assert (code, trailing["x-coalmine-origin"]) == (grpc.StatusCode.INTERNAL, "router")
        assert message.startswith("internal error, incident ")


async def test_an_unexpected_error_on_the_way_to_a_backend_is_reported_all_the_same() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        stable = proxy.plane.routing.by_model["digits"].stable
        address = stable.endpoints.pick()
        assert address is not None
        del address._unaries
        code, message, _ = await failure(proxy.infer(REQUEST))
        assert code is grpc.StatusCode.INTERNAL
        [report] = proxy.reports
        assert (report.status_code, report.origin_router, report.variant) == (13, True, "stable")
        assert [each.status_code for each in report.attempts] == [13]
        assert "_unaries" not in message + report.status_message
        assert not proxy.plane.admission.in_flight


async def test_a_name_of_any_length_is_refused_in_a_few_words() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        code, message, _ = await failure(proxy.infer(request_body("m" * 1_000_000)))
        assert code is grpc.StatusCode.NOT_FOUND
        assert len(message) < 200


def attempt(proxy: ProxyRig, timeout_s: float) -> Attempt:
    stable = proxy.plane.routing.by_model["digits"].stable
    address = stable.endpoints.pick()
    assert address is not None
    return Attempt(stable, address, b"12345678", time.perf_counter_ns(), timeout_s)


async def test_a_deadline_millennia_away_is_none_that_has_passed() -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        outcome = await forward(attempt(proxy, 99_999_999 * 3600.0), f"/{INFER}", REQUEST, [])
        assert outcome.is_ok


async def test_a_call_to_an_address_that_left_long_ago_is_told_so() -> None:
    soon = Intervals(idle_every_s=0.02, idle_max_s=0.1)
    async with (
        OipBackend(hanging()) as old,
        OipBackend() as new,
        ProxyRig(table(old.address), intervals=soon) as proxy,
    ):
        call = proxy.infer(REQUEST)
        await old.wait_seen(1)
        await proxy.use_access(table(new.address, revision=4))
        code, said, trailing = await failure(call)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert f"{old.address} was taken away" in said
        assert trailing["x-coalmine-origin"] == "router"


@pytest.mark.parametrize("value", ["caf\xe9", "a\tb"])
async def test_metadata_that_cannot_be_passed_on_is_refused_by_name(value: str) -> None:
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        outcome = await forward(attempt(proxy, 5.0), f"/{INFER}", REQUEST, [("x-user", value)])
        assert (outcome.code, outcome.here) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert "metadata 'x-user' can't be passed on" in outcome.message


async def test_while_answers_are_held_questions_and_refusals_wait_as_well() -> None:
    script = lambda _: Answer(b"")  # noqa: E731 - the shortest there is
    async with OipBackend(script) as backend, ProxyRig(table(backend.address)) as proxy:
        proxy.plane.gate.begin()
        asked = oip.ModelMetadataRequest(name="digits").SerializeToString()
        calls = [
            proxy.ask(f"{SERVICE}/ModelMetadata", asked),
            proxy.infer(request_body("nobody")),
            proxy.infer(REQUEST),
        ]
        await backend.wait_seen(2)
        assert not any(call.done() for call in calls)

        proxy.plane.gate.end()
        assert [await call.code() for call in calls] == [
            grpc.StatusCode.OK,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.OK,
        ]


async def test_an_instrumented_callers_tracestate_and_baggage_reach_the_backend() -> None:
    provider = TracerProvider()
    state = TraceState([("vendor", "1"), ("other", "a b")])
    parent = SpanContext(
        *(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=state,
    )
    context = set_span_in_context(NonRecordingSpan(parent), set_baggage("tenant", "acme"))
    async with OipBackend() as backend, ProxyRig(table(backend.address)) as proxy:
        token = attach(context)
        interceptors = aio_client_interceptors(provider)  # type: ignore[no-untyped-call]  # no types in the library
        async with grpc.aio.insecure_channel(proxy.address, interceptors=interceptors) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            call = channel.unary_unary(f"/{INFER}")
            await call(REQUEST)
        detach(token)
        seen, report = backend.seen[0], proxy.reports[0]
    assert report.trace_id == parent.trace_id.to_bytes(16, "big")
    assert report.parent_span_id != parent.span_id.to_bytes(8, "big"), "below the caller's own call"
    span_id = report.attempts[0].span_id.hex()
    assert seen.values("traceparent") == [f"00-{report.trace_id.hex()}-{span_id}-01"]
    assert seen.values("tracestate") == ["vendor=1,other=a b"]
    assert seen.values("baggage") == ["tenant=acme"]
