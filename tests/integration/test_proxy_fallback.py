"""Second attempts: when a request goes to stable instead, when it must not, and what is told."""

import asyncio
from contextlib import AsyncExitStack
from typing import Self

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.table import Route, RouteTable, Shadow, Sticky
from tests.doubles.backend_process import BackendProcess, backend_process
from tests.doubles.closing_backend import ClosingBackend
from tests.doubles.oip_backend import Answer, OipBackend, answering, failing, hanging
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import (
    PIN_CANARY,
    PIXELS,
    REQUEST,
    assert_all_let_out,
    closed_port,
    ended,
    split_route,
    table_of,
)
from tests.doubles.waiting import eventually

OK = grpc.StatusCode.OK
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED

LOADING = failing(UNAVAILABLE, "model 'digits-next' is loading")


class Split:
    """Both backends and the proxy: `async with Split(script) as split:`. All weight is canary's."""

    def __init__(
        self,
        canary: object = LOADING,
        route: Route | None = None,
        *,
        rules: EjectionRules | None = None,
    ) -> None:
        self.stable = OipBackend(answering(logits=PIXELS))
        self.canary = OipBackend(canary)  # type: ignore[arg-type]  # a Script
        self._rules = rules
        self._route = route or split_route(fallback=True)

    async def __aenter__(self) -> Self:
        self._life = AsyncExitStack()
        await self._life.enter_async_context(self.stable)
        await self._life.enter_async_context(self.canary)
        table = table_of(self.stable.address, self.canary.address, self._route)
        self.proxy = await self._life.enter_async_context(ProxyRig(table, rules=self._rules))
        return self

    async def __aexit__(self, *error: object) -> None:
        await assert_all_let_out(self.proxy)
        await self._life.aclose()

    @property
    def report(self) -> pb.Report:
        return self.proxy.reports[-1]

    def attempts(self) -> list[tuple[str, int]]:
        """Return who was called for the last request, with the status of each call."""
        return [(each.variant, each.status_code) for each in self.report.attempts]


# ---------------------------------------------------------------- from canary to stable


async def test_what_fell_back_to_stable_is_not_audited() -> None:
    async with OipBackend() as stable, OipBackend(failing(UNAVAILABLE)) as canary:
        route = split_route(fallback=True, audit_bp=10_000, shadows=(Shadow("stable", 10_000),))
        async with ProxyRig(table_of(stable.address, canary.address, route)) as proxy:
            got = await ended(proxy.infer(REQUEST))
            assert got.variant == "stable"
            await eventually(lambda: bool(proxy.reports))
            [report] = proxy.reports
            assert (report.chosen, report.audit, list(report.shadows)) == ("canary", "", [])
            assert dict(report.split_bp) == {"canary": 10_000}


async def test_an_audit_copies_to_the_other_side() -> None:
    async with OipBackend() as stable, OipBackend() as canary:
        route = split_route(5_000, audit_bp=10_000, noise_bp=10_000)
        async with ProxyRig(table_of(stable.address, canary.address, route)) as proxy:
            for _ in range(4):
                await proxy.infer(REQUEST)
            await proxy.infer(REQUEST, metadata=PIN_CANARY)
            await eventually(lambda: len(proxy.reports) == 5)
            sides = {(each.variant, each.audit, each.noise) for each in proxy.reports[:4]}
            assert sides == {("stable", "canary", True), ("canary", "stable", False)}
            assert proxy.reports[4].audit == "", "it was pinned"
            assert all(dict(each.split_bp) for each in proxy.reports[:4])


async def test_a_canary_that_is_unavailable_costs_its_caller_nothing() -> None:
    async with Split() as split:
        seen = await ended(split.proxy.infer(REQUEST))

        assert (seen.code, seen.variant, seen.is_routers) == (OK, "stable", False)
        assert seen.trailing["x-coalmine-revision"] == "3"
        assert (len(split.canary.seen), len(split.stable.seen)) == (1, 1)


async def test_a_fallback_is_reported_with_who_had_been_chosen_and_both_attempts() -> None:
    async with Split() as split:
        await split.proxy.infer(REQUEST)

        report = split.report
        assert (report.variant, report.assignment) == ("stable", pb.ASSIGNMENT_FALLBACK)
        assert (report.chosen, report.chosen_by) == ("canary", pb.ASSIGNMENT_SPLIT)
        assert (report.weight_bp, report.status_code, report.turned_away) == (10_000, 0, "")
        assert split.attempts() == [("canary", UNAVAILABLE.value[0]), ("stable", 0)]
        first, second = report.attempts
        assert first.status_message == "model 'digits-next' is loading"
        assert first.span_id != second.span_id
        assert first.started_ns + first.duration_ns <= second.started_ns
        assert (first.address, second.address) == (split.canary.address, split.stable.address)


async def test_each_attempt_is_a_span_of_its_own_and_has_its_variants_model() -> None:
    async with Split() as split:
        await split.proxy.infer(REQUEST, metadata=(("x-user", "ann"),))

        for backend, attempt, model in (
            (split.canary, split.report.attempts[0], "digits-next"),
            (split.stable, split.report.attempts[1], "digits"),
        ):
            [seen] = backend.seen
            [parent] = seen.values("traceparent")
            assert str(parent).split("-")[2] == attempt.span_id.hex()
            assert seen.values("x-user") == ["ann"]
            assert seen.infer.model_name == model


async def test_a_canary_that_hangs_leaves_half_of_the_time_to_stable() -> None:
    async with Split(hanging()) as split:
        seen = await ended(split.proxy.infer(REQUEST, timeout=2.0))

        assert (seen.code, seen.variant) == (OK, "stable")
        assert split.attempts() == [("canary", DEADLINE.value[0]), ("stable", 0)]
        given = [each.seen[0].time_remaining_s or 0.0 for each in (split.canary, split.stable)]
        assert all(0.4 < each <= 1.2 for each in given), given
        await split.canary.wait_cancelled(1)


async def test_without_a_callers_deadline_half_of_the_routes_is_the_canarys() -> None:
    route = split_route(fallback=True, timeout_ns=10**9)
    async with Split(hanging(), route) as split:
        seen = await ended(split.proxy.infer(REQUEST, timeout=None))

        assert (seen.code, seen.variant) == (OK, "stable")
        assert 0.2 < (split.canary.seen[0].time_remaining_s or 0.0) <= 0.6
        assert split.report.timeout_ns == 10**9
        assert 2 * split.report.attempts[0].duration_ns > 10**9, "what stable's are held to"


async def test_where_both_fail_the_answer_is_stables() -> None:
    async with Split() as split:
        split.stable.script = failing(grpc.StatusCode.INTERNAL, "stable broke")
        seen = await ended(split.proxy.infer(REQUEST))

        assert (seen.code, seen.message) == (grpc.StatusCode.INTERNAL, "stable broke")
        assert (seen.variant, seen.is_routers) == ("stable", False)
        assert split.attempts() == [("canary", UNAVAILABLE.value[0]), ("stable", 13)]


async def test_a_second_attempt_that_is_unavailable_too_is_the_last() -> None:
    async with Split() as split:
        split.stable.script = failing(UNAVAILABLE, "stable is loading")
        seen = await ended(split.proxy.infer(REQUEST))

        assert (seen.code, seen.message) == (UNAVAILABLE, "stable is loading")
        assert (len(split.canary.seen), len(split.stable.seen)) == (1, 1)


async def test_a_sticky_request_falls_back_too() -> None:
    route = split_route(fallback=True, sticky=Sticky("x-user"))
    async with Split(route=route) as split:
        seen = await ended(split.proxy.infer(REQUEST, metadata=(("x-user", "ann"),)))

        assert (seen.code, seen.variant) == (OK, "stable")
        assert (split.report.chosen, split.report.chosen_by) == ("canary", pb.ASSIGNMENT_STICKY)


# ---------------------------------------------------------------- what is not tried again


async def test_without_fallback_the_error_is_the_answer() -> None:
    async with Split(route=split_route(fallback=False)) as split:
        seen = await ended(split.proxy.infer(REQUEST))

        assert (seen.code, seen.variant) == (UNAVAILABLE, "canary")
        assert seen.message == "model 'digits-next' is loading"
        assert not split.stable.seen
        assert split.report.assignment == pb.ASSIGNMENT_SPLIT
        assert not split.report.chosen


async def test_without_fallback_a_canary_has_all_of_the_time() -> None:
    async with Split(answering(logits=PIXELS), split_route(fallback=False)) as split:
        await split.proxy.infer(REQUEST, timeout=8.0)
        assert (split.canary.seen[0].time_remaining_s or 0.0) > 5
        assert not split.report.timeout_ns


async def test_a_pinned_request_is_answered_by_whom_it_names_or_by_nobody() -> None:
    async with Split() as split:
        seen = await ended(split.proxy.infer(REQUEST, metadata=PIN_CANARY, timeout=8.0))

        assert (seen.code, seen.variant) == (UNAVAILABLE, "canary")
        assert not split.stable.seen
        assert (split.canary.seen[0].time_remaining_s or 0.0) > 5
        assert split.report.assignment == pb.ASSIGNMENT_PINNED


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
    ],
)
async def test_what_a_canary_says_of_the_request_is_the_answer(code: grpc.StatusCode) -> None:
    async with Split(failing(code, "no")) as split:
        seen = await ended(split.proxy.infer(REQUEST))

        assert (seen.code, seen.variant, seen.message) == (code, "canary", "no")
        assert not split.stable.seen
        assert len(split.report.attempts) == 1


async def test_an_answer_that_had_begun_is_not_asked_for_again() -> None:
    begun = Answer(code=UNAVAILABLE, message="half way", initial=(("x-first", "1"),))
    async with Split(lambda _: begun) as split:
        seen = await ended(split.proxy.infer(REQUEST))

        assert (seen.code, seen.message, seen.variant) == (UNAVAILABLE, "half way", "canary")
        assert not split.stable.seen


async def test_a_caller_that_gives_up_while_the_canary_thinks_asks_nobody_else() -> None:
    async with Split(hanging()) as split:
        call = split.proxy.infer(REQUEST, timeout=20.0)
        await split.canary.wait_seen(1)
        call.cancel()
        await split.canary.wait_cancelled(1)
        await eventually(lambda: bool(split.proxy.reports))

        assert not split.stable.seen
        assert split.attempts() == [("canary", 1)]
        assert (split.report.status_code, split.report.variant) == (1, "canary")


async def test_a_caller_that_gives_up_during_the_second_attempt_ends_it() -> None:
    async with Split() as split:
        split.stable.script = hanging()
        call = split.proxy.infer(REQUEST, timeout=20.0)
        await split.stable.wait_seen(1)
        call.cancel()
        await split.stable.wait_cancelled(1)
        await eventually(lambda: bool(split.proxy.reports))

        assert split.attempts() == [("canary", UNAVAILABLE.value[0]), ("stable", 1)]
        assert split.report.assignment == pb.ASSIGNMENT_FALLBACK


async def test_where_both_hang_the_callers_deadline_is_the_end() -> None:
    async with Split(hanging()) as split:
        split.stable.script = hanging()
        seen = await ended(split.proxy.infer(REQUEST, timeout=1.0))
        await eventually(lambda: bool(split.proxy.reports))

        assert seen.code is DEADLINE
        assert [name for name, _ in split.attempts()] == ["canary", "stable"]
        assert split.report.status_code == DEADLINE.value[0]


# ---------------------------------------------------------------- the budget


async def test_a_storm_is_tried_again_for_a_fifth_of_its_requests() -> None:
    async with Split(rules=EjectionRules(failures=1_000)) as split:
        answers = [await ended(split.proxy.infer(REQUEST)) for _ in range(60)]

        assert sum(each.code is OK for each in answers) == 12
        assert len(split.stable.seen) == 12
        assert {each.variant for each in answers if each.code is UNAVAILABLE} == {"canary"}
        assert [each.code for each in answers[:4]] == [OK, OK, OK, UNAVAILABLE]


async def test_with_nothing_left_to_try_again_a_canary_has_all_of_the_time() -> None:
    async with Split() as split:
        for _ in range(4):
            await ended(split.proxy.infer(REQUEST, timeout=8.0))
        given = [each.time_remaining_s or 0.0 for each in split.canary.seen]
        assert [each > 5 for each in given] == [False, False, False, True]


async def test_a_new_table_brings_no_new_budget() -> None:
    async with Split() as split:
        for _ in range(3):
            await split.proxy.infer(REQUEST)
        route = split_route(9_999, fallback=True)
        await split.proxy.use_access(
            table_of(split.stable.address, split.canary.address, route, revision=4)
        )
        seen = await ended(split.proxy.infer(REQUEST, metadata=()))
        assert (seen.code, seen.variant) == (UNAVAILABLE, "canary")
        assert seen.trailing["x-coalmine-revision"] == "4"


# ---------------------------------------------------------------- backends out of reach


@pytest.mark.parametrize("fallback", [True, False])
async def test_a_canary_that_was_never_connected_gets_no_request(fallback: bool) -> None:
    async with OipBackend(answering(logits=PIXELS)) as stable:
        route = split_route(fallback=fallback)
        async with ProxyRig(table_of(stable.address, closed_port(), route)) as proxy:
            for _ in range(20):
                seen = await ended(proxy.infer(REQUEST))
                assert (seen.code, seen.variant) == (OK, "stable")
            for report in proxy.reports:
                assert report.assignment == pb.ASSIGNMENT_FALLBACK
                assert (report.chosen, report.chosen_by) == ("canary", pb.ASSIGNMENT_SPLIT)
                assert [each.variant for each in report.attempts] == ["stable"]


async def test_who_pins_a_canary_out_of_reach_is_told_so() -> None:
    async with OipBackend() as stable:
        route = split_route(fallback=True)
        async with ProxyRig(table_of(stable.address, closed_port(), route)) as proxy:
            seen = await ended(proxy.infer(REQUEST, metadata=PIN_CANARY))
            assert (seen.code, seen.is_routers) == (UNAVAILABLE, True)
            assert "variant 'canary': backend 'green'" in seen.message
            assert not stable.seen
            await assert_all_let_out(proxy)


def kill(process: BackendProcess) -> None:
    process.process.kill()
    process.process.wait()


async def test_a_canary_killed_under_load_fails_no_request() -> None:
    route = split_route(1_000, fallback=True)
    with backend_process() as canary:
        async with (
            OipBackend(answering(logits=PIXELS)) as stable,
            ProxyRig(table_of(stable.address, canary.address, route)) as proxy,
        ):
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(_calls(proxy, 100)) for _ in range(4)]
                await eventually(lambda: len(proxy.reports) > 100)
                kill(canary)
            assert {code for call in calls for code in call.result()} == {OK}
            assert any(each.variant == "canary" for each in proxy.reports)
            assert any(each.assignment == pb.ASSIGNMENT_FALLBACK for each in proxy.reports)
            await assert_all_let_out(proxy)


async def test_of_two_addresses_of_stable_the_one_that_lives_answers() -> None:
    route = split_route(0, fallback=True)
    with backend_process() as killed, backend_process() as living:
        both = (killed.address, living.address)
        async with ProxyRig(table_of(both, closed_port(), route)) as proxy:
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(_calls(proxy, 100)) for _ in range(4)]
                await eventually(lambda: len(proxy.reports) > 100)
                kill(killed)
            assert {code for call in calls for code in call.result()} == {OK}
            assert {each.variant for each in proxy.reports} == {"stable"}
            assert {each.assignment for each in proxy.reports} == {pb.ASSIGNMENT_SPLIT}
            assert {each.address for each in proxy.reports[-1].attempts} == {living.address}


async def _calls(proxy: ProxyRig, count: int) -> list[grpc.StatusCode]:
    return [(await ended(proxy.infer(REQUEST))).code for _ in range(count)]


async def test_a_stable_of_one_address_is_not_asked_twice() -> None:
    async with OipBackend(failing(UNAVAILABLE, "loading")) as stable:
        route = split_route(0, fallback=True)
        async with ProxyRig(table_of(stable.address, closed_port(), route)) as proxy:
            seen = await ended(proxy.infer(REQUEST))
            assert (seen.code, seen.message) == (UNAVAILABLE, "loading")
            assert len(stable.seen) == 1


@pytest.mark.parametrize("fallback", [True, False])
async def test_a_backend_whose_connections_grow_old_fails_no_request(fallback: bool) -> None:
    options = [("grpc.max_connection_age_ms", 500), ("grpc.max_connection_age_grace_ms", 2_000)]
    async with OipBackend(answering(logits=PIXELS), options=options) as stable:
        route = split_route(0, fallback=fallback)
        async with ProxyRig(table_of(stable.address, closed_port(), route)) as proxy:
            loop = asyncio.get_running_loop()
            over = loop.time() + 4
            codes: set[tuple[grpc.StatusCode, str]] = set()

            async def load() -> None:
                while loop.time() < over:
                    seen = await ended(proxy.infer(REQUEST))
                    codes.add((seen.code, seen.message))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(16):
                    tasks.create_task(load())
            assert codes == {(OK, "")}
            await assert_all_let_out(proxy)


# ---------------------------------------------------------------- connections that close


def only_stable(*targets: str, fallback: bool = False) -> RouteTable:
    return table_of(targets, closed_port(), split_route(0, fallback=fallback))


async def test_a_call_that_a_closing_backend_never_looked_at_is_sent_again() -> None:
    async with (
        ClosingBackend(looks=False) as backend,
        ProxyRig(only_stable(backend.address)) as proxy,
    ):
        pin = (("x-coalmine-variant", "stable"),)
        seen = await ended(proxy.infer(REQUEST, metadata=pin))

        assert seen.code is grpc.StatusCode.UNIMPLEMENTED, "what it says of a call that it looks at"
        assert backend.asked == 2
        [report] = proxy.reports
        assert [each.status_code for each in report.attempts] == [14, 12]
        assert (report.assignment, report.chosen) == (pb.ASSIGNMENT_PINNED, "")


async def test_a_call_that_a_closing_backend_never_looked_at_is_sent_again_once() -> None:
    async with (
        ClosingBackend(looks=False, closings=9) as backend,
        ProxyRig(only_stable(backend.address, fallback=True)) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST))

        assert (seen.code, seen.is_routers) == (UNAVAILABLE, True)
        assert "was closing the connection" in seen.message
        assert backend.asked == 2


async def test_a_call_that_a_backend_had_looked_at_before_it_closed_is_not_sent_again() -> None:
    async with (
        ClosingBackend(looks=True) as backend,
        ProxyRig(only_stable(backend.address)) as proxy,
    ):
        seen = await ended(proxy.infer(REQUEST))

        assert (seen.code, seen.is_routers) == (UNAVAILABLE, True)
        assert backend.asked == 1


async def test_of_two_addresses_the_one_that_is_not_closing_gets_the_call_again() -> None:
    async with (
        ClosingBackend(looks=False, closings=9) as closing,
        OipBackend(answering(logits=PIXELS)) as living,
        ProxyRig(only_stable(closing.address, living.address)) as proxy,
    ):
        await eventually(lambda: proxy.backends.reach()[0].available == 2)
        for _ in range(10):
            assert (await ended(proxy.infer(REQUEST))).code is OK
        assert closing.asked > 0


async def test_a_backend_that_closes_its_connections_is_not_taken_for_one_that_fails() -> None:
    async with (
        ClosingBackend(looks=False, closings=99) as closing,
        ProxyRig(only_stable(closing.address)) as proxy,
    ):
        endpoints = proxy.plane.routing.by_name["digits"].stable.endpoints
        for _ in range(6):
            await ended(proxy.infer(REQUEST))
        assert not endpoints._ejections.marks


# ---------------------------------------------------------------- a canary that lives and is no use


async def test_a_lone_canary_that_goes_on_being_unavailable_is_left_alone_after_a_while() -> None:
    async with Split(answering(logits=PIXELS), split_route(5_000, fallback=True)) as split:
        for _ in range(50):  # what a fifth of can be tried again
            await ended(split.proxy.infer(REQUEST))
        split.canary.script = LOADING
        seen = [await ended(split.proxy.infer(REQUEST)) for _ in range(100)]

        assert {each.code for each in seen} == {OK}
        failed = sum(bool(report.attempts[0].status_code) for report in split.proxy.reports)
        assert failed == 5
        assert {
            each.available for each in split.proxy.backends.reach() if each.variant == "canary"
        } == {0}
