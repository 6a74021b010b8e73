"""ModelStreamInfer through the data plane: one variant a stream, and how each side may end it."""

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as control
from coalmine.inference import inference_pb2 as pb
from coalmine_router.backends.intervals import Intervals
from coalmine_router.table import Limits, Match, Shadow
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import (
    PIN_CANARY,
    assert_all_let_out,
    closed_port,
    split_route,
    table_of,
)
from tests.doubles.stream_backend import (
    STREAM,
    Does,
    Stream,
    StreamBackend,
    in_turn,
    once,
    stream_backend,
)
from tests.doubles.waiting import eventually

OK = grpc.StatusCode.OK
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

Pairs = Sequence[tuple[str, str | bytes]]


def request(number: int, *, model: str = "digits", blob: bytes = b"") -> bytes:
    made = pb.ModelInferRequest(model_name=model, id=str(number))
    if blob:
        made.raw_input_contents.append(blob)
    return made.SerializeToString()


class Call:
    """A stream as its caller has it."""

    def __init__(
        self, proxy: ProxyRig, *, metadata: Pairs = (), timeout: float | None = 20.0
    ) -> None:
        method: Any = proxy.channel.stream_stream(f"/{STREAM}")
        self.call = method(metadata=tuple(metadata), timeout=timeout)

    async def ask(self, *numbers: int, **parts: Any) -> None:
        for number in numbers:
            await self.call.write(request(number, **parts))

    async def answer(self) -> pb.ModelStreamInferResponse:
        body = await self.call.read()
        assert isinstance(body, bytes), f"no answer: {await self.code()} {await self.said()}"
        return pb.ModelStreamInferResponse.FromString(body)

    async def answers(self) -> list[str]:
        """Return the ids of all answers to come."""
        ids = []
        try:
            while isinstance(body := await self.call.read(), bytes):
                ids.append(pb.ModelStreamInferResponse.FromString(body).infer_response.id)
        except grpc.aio.AioRpcError:
            pass
        return ids

    async def close(self) -> None:
        await self.call.done_writing()

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await self.call.code()
        return code

    async def said(self) -> str:
        return str(await self.call.details())

    async def trailing(self) -> dict[str, str | bytes]:
        return dict(await self.call.trailing_metadata())


@asynccontextmanager
async def routed(
    does: Does = in_turn, *, canary_bp: int = 0, **route: Any
) -> AsyncIterator[tuple[ProxyRig, StreamBackend]]:
    """Yield a proxy, of which both variants are on one backend; at the end nothing is in flight."""
    async with stream_backend(does) as backend:
        table = table_of(backend.address, backend.address, split_route(canary_bp, **route))
        async with ProxyRig(table) as proxy:
            yield proxy, backend
            await eventually(lambda: not proxy.plane.admission.in_flight)
            await assert_all_let_out(proxy)


async def reported(proxy: ProxyRig, count: int = 1) -> control.Report:
    await eventually(lambda: len(proxy.reports) >= count)
    assert len(proxy.reports) == count
    return proxy.reports[-1]


# ---------------------------------------------------------------- which variant


async def test_all_requests_of_a_stream_are_one_variants() -> None:
    async with routed(canary_bp=5_000) as (proxy, backend):
        for _ in range(6):
            call = Call(proxy)
            await call.ask(0, 1, 2)
            await call.close()
            assert await call.answers() == ["0", "1", "2"]
        models = [{each.model_name for each in stream.asked} for stream in backend.streams]
        assert all(len(each) == 1 for each in models)
        assert Counter(each for only in models for each in only) == {"digits": 3, "digits-next": 3}


async def test_every_request_is_given_the_variants_model_and_version() -> None:
    async with routed() as (proxy, backend):
        call = Call(proxy, metadata=PIN_CANARY)
        await call.ask(0, 1, 2)
        await call.close()
        await call.answers()
        [stream] = backend.streams
        assert [(each.model_name, each.model_version) for each in stream.asked] == [
            ("digits-next", "2")
        ] * 3
        trailing = await call.trailing()
        assert (trailing["x-coalmine-variant"], trailing["x-coalmine-revision"]) == ("canary", "3")


async def test_a_stream_finishes_on_the_table_it_began_with() -> None:
    async with routed() as (proxy, backend):
        call = Call(proxy)
        await call.ask(0)
        assert (await call.answer()).infer_response.id == "0"
        await proxy.use_access(
            table_of(backend.address, backend.address, split_route(10_000), revision=4)
        )
        await call.ask(1)
        await call.close()
        assert await call.answers() == ["1"]
        assert {each.model_name for each in backend.streams[0].asked} == {"digits"}
        assert (await call.trailing())["x-coalmine-revision"] == "3"


async def test_metadata_travels_with_a_stream_and_the_trace_goes_on() -> None:
    async with routed() as (proxy, backend):
        call = Call(proxy, metadata=(("x-user", "a"), ("x-user", "b"), ("k-bin", b"\xff")))
        await call.ask(0)
        await call.close()
        await call.answers()
        report = await reported(proxy)
        [stream] = backend.streams
        assert (stream.values("x-user"), stream.values("k-bin")) == (["a", "b"], [b"\xff"])
        [parent] = stream.values("traceparent")
        [attempt] = report.attempts
        assert str(parent).split("-")[1:3] == [report.trace_id.hex(), attempt.span_id.hex()]


async def test_a_stream_of_a_default_route_stays_with_the_model_it_began_with() -> None:
    async with routed(match=Match(is_default=True)) as (proxy, _):
        call = Call(proxy)
        await call.ask(0, model="faces")
        await call.ask(1, model="digits")
        assert await call.answers() in (["0"], [])
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await reported(proxy)).model == "faces"


# ---------------------------------------------------------------- requests and answers


async def test_answers_come_as_they_are_given_not_at_the_end() -> None:
    async with routed() as (proxy, _):
        call = Call(proxy)
        for number in range(3):
            await call.ask(number)
            assert (await call.answer()).infer_response.id == str(number)
        await call.close()
        assert await call.answers() == []
        assert await call.code() is OK


async def test_after_the_caller_has_closed_its_half_answers_still_come() -> None:
    async def late(stream: Stream) -> None:
        while await stream.next() is not None:
            pass
        for each in stream.asked:
            await stream.answer(each)
            await stream.answer(each)

    async with routed(late) as (proxy, _):
        call = Call(proxy)
        await call.ask(0, 1)
        await call.close()
        assert await call.answers() == ["0", "0", "1", "1"]
        assert await call.code() is OK


async def test_an_error_inside_of_a_stream_is_an_answer_like_any_other() -> None:
    async def failing(stream: Stream) -> None:
        while (asked := await stream.next()) is not None:
            await stream.answer(asked, "model broke" if asked.id == "1" else "")

    async with routed(failing) as (proxy, _):
        call = Call(proxy)
        await call.ask(0, 1, 2)
        await call.close()
        errors = [(await call.answer()).error_message for _ in range(3)]
        assert errors == ["", "model broke", ""]
        assert await call.code() is OK
        assert (await reported(proxy)).status_code == 0


async def test_what_was_asked_before_a_wrong_request_is_answered_first() -> None:
    answering = asyncio.Event()

    async def at_the_end(stream: Stream) -> None:
        while await stream.next() is not None:
            pass
        await answering.wait()
        for each in stream.asked:
            await stream.answer(each)

    async with routed(at_the_end) as (proxy, backend):
        call = Call(proxy)
        await call.ask(1, 2, 3)
        await call.ask(4, model="another")
        await eventually(lambda: backend.streams and backend.streams[0].is_half_closed)
        answering.set()
        assert await call.answers() == ["1", "2", "3"]
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [each.id for each in backend.streams[0].asked] == ["1", "2", "3"]


@pytest.mark.parametrize("wrong", [request(1, model="faces"), b"\x0a\xff\xff", b""])
async def test_a_request_for_another_model_ends_the_stream(wrong: bytes) -> None:
    # This backend never ends: no stream waits longer for the rest than an answer may take.
    async with routed(once, timeout_ns=50_000_000) as (proxy, backend):
        call = Call(proxy)
        await call.ask(0)
        assert (await call.answer()).infer_response.id == "0"
        await call.call.write(wrong)
        assert await call.answers() == []
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        trailing = await call.trailing()
        assert (trailing["x-coalmine-origin"], trailing["x-coalmine-variant"]) == (
            "router",
            "stable",
        )
        await eventually(lambda: backend.streams[0].is_cancelled)
        assert [each.id for each in backend.streams[0].asked] == ["0"]
        report = await reported(proxy)
        assert (report.status_code, report.origin_router) == (3, True)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (request(0, model="nobody"), grpc.StatusCode.NOT_FOUND),
        (b"\x0a\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_stream_that_begins_with_what_nobody_can_answer_is_refused(
    first: bytes, code: grpc.StatusCode
) -> None:
    async with routed() as (proxy, backend):
        call = Call(proxy)
        await call.call.write(first)
        assert await call.answers() == []
        assert await call.code() is code
        assert (await call.trailing())["x-coalmine-origin"] == "router"
        assert not backend.streams
        report = await reported(proxy)
        assert (report.status_code, report.method) == (code.value[0], STREAM)


async def test_a_stream_of_no_requests_ends_well_and_is_no_request() -> None:
    async with routed() as (proxy, backend):
        call = Call(proxy)
        await call.close()
        assert await call.answers() == []
        assert await call.code() is OK
        assert not backend.streams
        assert not proxy.reports


# ---------------------------------------------------------------- how a stream ends


async def test_the_backends_status_and_trailers_are_the_callers() -> None:
    async def ends(stream: Stream) -> None:
        asked = await stream.next()
        assert asked is not None
        await stream.context.send_initial_metadata((("x-first", "1"), ("x-coalmine-a", "1")))
        await stream.answer(asked)
        trailing = (("x-why", "b"), ("grpc-status-details-bin", b"\x08\x03"), ("x-coalmine-b", "1"))
        await stream.context.abort(grpc.StatusCode.ABORTED, "enough", trailing)

    async with routed(ends) as (proxy, _):
        call = Call(proxy)
        await call.ask(0)
        assert await call.answers() == ["0"]
        assert (await call.code(), await call.said()) == (grpc.StatusCode.ABORTED, "enough")
        trailing = await call.trailing()
        assert (trailing["x-why"], trailing["grpc-status-details-bin"]) == ("b", b"\x08\x03")
        assert "x-coalmine-origin" not in trailing
        assert "x-coalmine-b" not in trailing
        initial = dict(await call.call.initial_metadata())
        assert initial["x-first"] == "1"
        assert "x-coalmine-a" not in initial
        report = await reported(proxy)
        assert (report.status_code, report.status_message) == (10, "enough")
        assert report.attempts[0].status_code == 10


async def test_a_backend_may_end_a_stream_well_before_the_caller_does() -> None:
    async def one(stream: Stream) -> None:
        asked = await stream.next()
        assert asked is not None
        await stream.answer(asked)
        stream.context.set_trailing_metadata((("x-last", "1"),))

    async with routed(one) as (proxy, _):
        call = Call(proxy)
        await call.ask(0)
        async with asyncio.timeout(5):
            assert await call.answers() == ["0"]
            assert await call.code() is OK
        assert (await call.trailing())["x-last"] == "1"
        assert (await reported(proxy)).status_code == 0


async def test_a_cancelled_stream_is_cancelled_at_the_backend_too() -> None:
    async with routed(once) as (proxy, backend):
        call = Call(proxy)
        await call.ask(0)
        await call.answer()
        call.call.cancel()
        await eventually(lambda: backend.streams[0].is_cancelled)
        report = await reported(proxy)
        assert (report.status_code, report.attempts[0].status_code) == (1, 1)


async def test_a_caller_whose_connection_breaks_leaves_nothing_behind() -> None:
    async with routed(once) as (proxy, backend):
        call = Call(proxy)
        await call.ask(0)
        await call.answer()
        await proxy.channel.close()
        await eventually(lambda: backend.streams[0].is_cancelled)
        assert (await reported(proxy)).status_code == 1


async def test_a_streams_deadline_is_its_callers_and_the_backend_sees_it() -> None:
    async with routed(timeout_ns=10**8) as (proxy, backend):
        call = Call(proxy, timeout=1.0)
        await call.ask(0)
        await call.answer()
        assert await call.answers() == []
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0.5 < (backend.streams[0].time_remaining_s or 0) <= 1.2
        assert (await reported(proxy)).status_code == 4


async def test_without_a_deadline_a_stream_outlives_the_routes_timeout() -> None:
    async with routed(timeout_ns=10**6) as (proxy, backend):
        call = Call(proxy, timeout=None)
        await call.ask(0)
        await call.answer()
        assert (backend.streams[0].time_remaining_s or 1e9) > 3_600
        await call.ask(1)
        assert (await call.answer()).infer_response.id == "1"
        await call.close()
        assert await call.code() is OK


async def test_a_backend_that_dies_in_the_middle_of_a_stream_is_unavailable() -> None:
    async with routed() as (proxy, backend):
        call = Call(proxy)
        await call.ask(0)
        await call.answer()
        assert backend.server is not None
        await backend.server.stop(None)
        assert await call.answers() == []
        assert await call.code() is UNAVAILABLE
        report = await reported(proxy)
        assert (report.status_code, report.attempts[0].status_code) == (14, 14)


async def test_a_stream_to_an_address_that_left_long_ago_is_told_so() -> None:
    soon = Intervals(idle_every_s=0.02, idle_max_s=0.1)
    async with stream_backend(once) as old, stream_backend(once) as new:
        table = table_of(old.address, old.address, split_route(0))
        async with ProxyRig(table, intervals=soon) as proxy:
            call = Call(proxy)
            await call.ask(0)
            await call.answer()
            await proxy.use_access(table_of(new.address, new.address, split_route(0), revision=4))
            assert await call.answers() == []
            assert await call.code() is UNAVAILABLE
            assert f"{old.address} was taken away" in await call.said()
            assert (await call.trailing())["x-coalmine-origin"] == "router"
            report = await reported(proxy)
            assert (report.status_code, report.origin_router) == (14, True)


async def test_a_stream_is_not_begun_again_elsewhere() -> None:
    async with stream_backend() as stable:
        route = split_route(10_000, fallback=True)
        async with ProxyRig(table_of(stable.address, closed_port(), route)) as proxy:
            pinned = Call(proxy, metadata=PIN_CANARY)
            await pinned.ask(0)
            assert await pinned.answers() == []
            assert await pinned.code() is UNAVAILABLE
            assert (await pinned.trailing())["x-coalmine-origin"] == "router"
            assert not stable.streams

            call = Call(proxy)
            await call.ask(0)
            await call.close()
            assert await call.answers() == ["0"]
            report = await reported(proxy, 2)
            assert (report.variant, report.chosen) == ("stable", "canary")
            assert report.assignment == control.ASSIGNMENT_FALLBACK


async def test_a_router_that_is_ending_answers_what_was_asked_and_then_says_so() -> None:
    released = asyncio.Event()

    async def waits(stream: Stream) -> None:
        while await stream.next() is not None:
            pass
        await released.wait()
        for each in stream.asked:
            await stream.answer(each)

    async with routed(waits) as (proxy, backend):
        call = Call(proxy)
        await call.ask(0, 1)
        await eventually(lambda: bool(backend.streams) and len(backend.streams[0].asked) == 2)
        proxy.plane.refuse()
        await eventually(lambda: backend.streams[0].is_half_closed)
        released.set()
        assert await call.answers() == ["0", "1"]
        assert await call.code() is UNAVAILABLE
        trailing = await call.trailing()
        assert trailing["x-coalmine-origin"] == "router"
        report = await reported(proxy)
        assert (report.status_code, report.origin_router) == (14, True)

        late = Call(proxy)
        await late.ask(0)
        assert await late.answers() == []
        assert await late.code() is UNAVAILABLE


async def test_a_router_that_is_ending_does_not_wait_for_a_first_request() -> None:
    async with routed() as (proxy, _):
        call = Call(proxy)
        begun = Call(proxy)
        await begun.ask(0)
        await begun.answer()
        proxy.plane.refuse()
        async with asyncio.timeout(5):
            assert await call.answers() == []
            assert await call.code() is UNAVAILABLE
            assert (await call.trailing())["x-coalmine-origin"] == "router"


# ---------------------------------------------------------------- limits and reports


async def test_a_stream_is_one_request_to_the_limits_for_as_long_as_it_lasts() -> None:
    async with routed(limits=Limits(in_flight_max=1)) as (proxy, _):
        first = Call(proxy)
        await first.ask(0, 1, 2)
        await first.answer()
        assert proxy.plane.admission.in_flight == 1

        second = Call(proxy)
        await second.ask(0)
        assert await second.answers() == []
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await second.trailing())["x-coalmine-origin"] == "router"
        assert (await reported(proxy)).turned_away == "in_flight"

        await first.close()
        assert await first.answers() == ["1", "2"]
        await eventually(lambda: not proxy.plane.admission.in_flight)
        third = Call(proxy)
        await third.ask(0)
        await third.close()
        assert await third.answers() == ["0"]


async def test_streams_that_say_nothing_are_bounded_too_and_make_room_again() -> None:
    async with routed() as (proxy, backend):
        proxy.swap(
            table_of(backend.address, backend.address, split_route(0), limits=Limits(1), revision=4)
        )
        calls = [Call(proxy), Call(proxy)]
        await eventually(lambda: any(each.call.done() for each in calls))
        (refused,) = [each for each in calls if each.call.done()]
        (silent,) = [each for each in calls if each is not refused]
        assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await refused.trailing())["x-coalmine-origin"] == "router"

        await silent.close()
        assert await silent.answers() == []
        third = Call(proxy)
        await third.ask(0)
        await third.close()
        assert await third.answers() == ["0"]


async def test_a_stream_is_reported_once_when_it_has_ended() -> None:
    async with routed(shadows=(Shadow("canary", 10_000),), audit_bp=10_000) as (proxy, backend):
        call = Call(proxy)
        await call.ask(0, 1, 2)
        await call.close()
        assert not proxy.reports
        await call.answers()
        report = await reported(proxy)
        assert (report.method, report.route, report.model) == (STREAM, "digits", "digits")
        assert (report.variant, report.assignment) == ("stable", control.ASSIGNMENT_SPLIT)
        assert (report.status_code, report.turned_away) == (0, "")
        assert (list(report.shadows), report.audit) == ([], ""), "never copied"
        [attempt] = report.attempts
        assert (attempt.address, attempt.status_code) == (backend.address, 0)
        assert 0 < attempt.duration_ns <= report.duration_ns


# ---------------------------------------------------------------- how much is held


def held_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


BLOB = bytes(1024 * 1024)


async def test_a_stream_that_an_unexpected_error_ends_is_reported_all_the_same() -> None:
    async with routed() as (proxy, _):
        address = proxy.plane.routing.by_name["digits"].stable.endpoints.pick()
        assert address is not None
        del address._streams
        call = Call(proxy)
        await call.ask(0)
        assert await call.answers() == []
        assert await call.code() is grpc.StatusCode.INTERNAL
        report = await reported(proxy)
        assert (report.status_code, report.origin_router) == (13, True)
        assert [each.status_code for each in report.attempts] == [13]


async def test_a_caller_that_reads_nothing_holds_its_backend_back() -> None:
    wrote = 0

    async def pours(stream: Stream) -> None:
        nonlocal wrote
        await stream.next()
        answer = pb.ModelStreamInferResponse()
        answer.infer_response.raw_output_contents.append(BLOB)
        body = answer.SerializeToString()
        while wrote < 400:
            await stream.context.write(body)
            wrote += 1

    async with routed(pours) as (proxy, _):
        before = held_mib()
        call = Call(proxy)
        await call.ask(0)
        await call.answer()
        await stands_still(lambda: wrote)
        assert wrote < 100, f"{wrote} MiB of answers were taken that nobody reads"
        assert held_mib() - before < 150
        call.call.cancel()


async def test_a_backend_that_reads_nothing_holds_its_caller_back() -> None:
    async def deaf(stream: Stream) -> None:
        await stream.next()
        await asyncio.Event().wait()

    async with routed(deaf) as (proxy, _):
        before = held_mib()
        call, wrote = Call(proxy), 0

        async def pour() -> None:
            nonlocal wrote
            while wrote < 400:
                await call.ask(wrote, blob=BLOB)
                wrote += 1

        async with asyncio.TaskGroup() as tasks:
            pouring = tasks.create_task(pour())
            await stands_still(lambda: wrote)
            pouring.cancel()
        assert 0 < wrote < 100, f"{wrote} MiB of requests were taken that nobody reads"
        assert held_mib() - before < 150
        call.call.cancel()


async def stands_still(count: Callable[[], int]) -> None:
    """Return once `count` has been the same for half a second."""
    loop = asyncio.get_running_loop()
    last, since = -1, loop.time()
    async with asyncio.timeout(30):
        while loop.time() - since < 0.5:
            if count() != last:
                last, since = count(), loop.time()
            await asyncio.sleep(0.01)


async def test_streams_that_come_and_go_in_a_crowd_leave_nothing_in_flight() -> None:
    async def one(proxy: ProxyRig, number: int) -> None:
        call = Call(proxy)
        await call.ask(*range(number % 5 + 1))
        if number % 3 == 0:
            await call.answer()
            call.call.cancel()
            return
        await call.close()
        assert len(await call.answers()) == number % 5 + 1

    async with routed(canary_bp=3_000) as (proxy, _):
        async with asyncio.TaskGroup() as tasks:
            for number in range(120):
                tasks.create_task(one(proxy, number))
        await eventually(lambda: len(proxy.reports) == 120)
