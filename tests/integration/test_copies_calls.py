"""Copies over real gRPC: whom they go to, with what, and how long they may take."""

import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from coalmine_router.config.file import BackendTlsConfig, RouterConfig
from coalmine_router.table import Match, Route, RouteTable, Variant
from tests.doubles.backends_rig import NamesByHand
from tests.doubles.certificates import Authority
from tests.doubles.clock import HandClock
from tests.doubles.closing_backend import ClosingBackend
from tests.doubles.copying import copied_config, copying
from tests.doubles.digit_reports import LOGITS, REQUEST, RESPONSE, shadowed
from tests.doubles.oip_backend import (
    INFER,
    Answer,
    OipBackend,
    answering,
    failing,
)
from tests.doubles.raw_backend import RawBackend, status
from tests.doubles.reports import UNUSED, report
from tests.doubles.split_route import closed_port
from tests.doubles.tls_server import TlsServer


def with_token(config: RouterConfig, file: Path) -> RouterConfig:
    known = config.backends["canary"]
    config.backends["canary"] = known.model_copy(update={"token_file": file})
    return config


def with_targets(config: RouterConfig, *targets: str) -> RouterConfig:
    known = config.backends["canary"]
    config.backends["canary"] = known.model_copy(update={"targets": targets})
    return config


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


async def test_a_shadow_is_asked_with_the_callers_bytes_and_its_own_model_name() -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        async with copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig:
            rig.offer(shadowed(metadata=[("x-user-id", b"ann"), ("k-bin", b"\x00\xff")]))
            await rig.ended(1)
        (seen,) = shadow.seen
    assert seen.method == INFER
    assert seen.body.startswith(REQUEST)
    assert (seen.infer.model_name, seen.infer.model_version) == ("digits-next", "2")
    assert seen.values("x-user-id") == ["ann"]
    assert seen.values("k-bin") == [b"\x00\xff"]


async def test_the_copies_of_all_roles_go_to_their_variants_each_on_a_queue_of_its_own() -> None:
    config = copied_config(
        stable=UNUSED,
        canary=UNUSED,
        int8=UNUSED,
        shares=["int8"],
        route={"audit": "10%", "noise": "10%"},
    )
    async with OipBackend(answering(logits=LOGITS)) as backend:
        for name in config.backends:
            known = config.backends[name]
            config.backends[name] = known.model_copy(update={"targets": (backend.address,)})
        async with copying(config) as rig:
            rig.offer(report(REQUEST, RESPONSE, shadows=["int8"], audit="canary", noise=True))
            await rig.ended(3)
        models = sorted(each.infer.model_name for each in backend.seen)
    roles = {call.copy.role: call.copy.variant for call in rig.calls}
    assert roles == {"shadow": "int8", "audit": "canary", "noise": "stable"}
    assert models == ["digits", "digits", "digits-next"]
    assert rig.totals("canary", "audit").answered == 1
    assert rig.totals("stable", "noise").answered == 1


async def test_a_shadow_is_shown_the_routers_token_in_the_place_of_the_callers(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("routers\n")
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = with_token(copied_config(stable=UNUSED, canary=shadow.address), file)
        async with copying(config) as rig:
            rig.offer(shadowed(metadata=[("authorization", b"Bearer callers")]))
            await rig.ended(1)
        (seen,) = shadow.seen
    assert seen.values("authorization") == ["Bearer routers"]


async def test_copies_take_up_a_new_token_and_new_certificates(tmp_path: Path) -> None:
    authority, token = Authority(tmp_path), tmp_path / "token"
    client = authority.client()
    token.write_text("first\n")
    async with TlsServer(authority.server(), client_ca=authority.ca) as shadow:
        config = with_token(copied_config(stable=UNUSED, canary=shadow.address), token)
        files = BackendTlsConfig(ca=authority.ca, cert=client.cert, key=client.key)
        known = config.backends["canary"]
        config.backends["canary"] = known.model_copy(update={"tls": files})
        async with copying(config) as rig:
            endpoints = rig.backends.endpoints("digits", "canary")
            first = endpoints.pick()
            rig.offer(shadowed())
            await rig.ended(1)
            authority.client()
            token.write_text("second\n")
            await rig.backends.wait_until(lambda: endpoints.pick() not in {None, first}, 10)
            await rig.backends.wait_until(lambda: "second" in str(endpoints.token_metadata), 10)
            rig.offer(shadowed())
            await rig.ended(2)
    assert rig.codes == ["OK", "OK"]
    assert len(shadow.peers) == 2
    assert [each["authorization"] for each in shadow.metadata] == ["Bearer first", "Bearer second"]


async def test_a_shadow_whose_files_are_wrong_gets_copies_once_they_are_right(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = with_token(copied_config(stable=UNUSED, canary=shadow.address), file)
        async with copying(config) as rig:
            for _ in range(20):
                rig.offer(shadowed())
            file.write_text("routers\n")
            await rig.ended(20)
            assert rig.totals().circuit == "closed"
    assert rig.codes == ["OK"] * 20


@pytest.mark.parametrize("odd", [("x-user", "é".encode()), ("x-user", b"\x01"), ("X-User", b"a")])
async def test_metadata_that_grpc_refuses_is_told_once_and_counted(odd: tuple[str, bytes]) -> None:
    async with (
        OipBackend(answering(logits=LOGITS)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        with capture_logs() as logs:
            rig.offer(*[shadowed(metadata=[odd]) for _ in range(20)], shadowed())
            await rig.ended(21)
    assert rig.dropped() == {"not_sent": 20}
    assert rig.codes == ["OK"]
    assert [(each["event"], each.get("exc_info")) for each in logs] == [("copy_not_sent", None)]


class Zeros(random.Random):
    """Chance that comes up 0 each time."""

    def getrandbits(self, k: int) -> int:
        return 0


async def test_no_copy_has_the_span_id_that_means_none() -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = copied_config(stable=UNUSED, canary=shadow.address)
        async with copying(config, rng=Zeros()) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
    assert rig.calls[0].span_id == (1).to_bytes(8, "big")


@pytest.mark.parametrize(("sampled", "flag"), [(True, "01"), (False, "00")])
async def test_a_shadow_gets_the_callers_trace_and_head_decision(sampled: bool, flag: str) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        # A proxy reports it with the metadata, and for the spans.
        state = {"tracestate": "a=b", "metadata": [("tracestate", b"a=b")]}
        sent = shadowed(sampled=sampled, **state)
        sent_id, own = sent.trace_id, {sent.span_id.hex(), sent.attempts[0].span_id.hex()}
        async with copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig:
            rig.offer(sent)
            await rig.ended(1)
        (parent,) = shadow.seen[0].values("traceparent")
        assert shadow.seen[0].values("tracestate") == ["a=b"]
    version, trace_id, span_id, got = str(parent).split("-")
    assert (version, trace_id, got) == ("00", sent_id.hex(), flag)
    assert span_id not in own
    assert span_id == rig.calls[0].span_id.hex()


@pytest.mark.parametrize(
    ("route", "at_most_s"),
    [
        ({"timeout": "200ms"}, 0.2),
        ({"timeout": "30s"}, 5.0),
        ({"shadows": {"canary": {"share": "100%", "timeout": "1s"}}}, 1.0),
        ({"shadows": {"canary": {"share": "100%", "timeout": "9s"}}, "timeout": "2s"}, 2.0),
    ],
    ids=["the route's", "five seconds", "its own", "the route's below its own"],
)
async def test_a_copys_deadline_is_its_own_and_at_most_the_routes(
    route: dict[str, Any], at_most_s: float
) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = copied_config(stable=UNUSED, canary=shadow.address, route=route)
        async with copying(config) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
        remaining = shadow.seen[0].time_remaining_s
    assert remaining is not None
    # The wire carries it rounded up.
    assert at_most_s / 2 < remaining <= at_most_s * 1.1


async def test_another_services_bytes_go_to_the_same_method_as_they_are() -> None:
    async with OipBackend(lambda _: Answer(b"found")) as backend:
        config = copied_config(stable=UNUSED, canary=backend.address)
        async with copying(config) as rig:
            variants = (
                Variant("stable", "stable", weight_bp=10_000),
                Variant("canary", "canary"),
            )
            match = Match(service="a.Books")
            books = Route("digits", match, variants, copy_methods=("Find",))
            rig.table = RouteTable(2, rig.table.backends, (books,))
            for method in ("a.Books/Find", "a.Books/Buy"):
                rig.offer(report(b"\xff\x00", b"found", shadows=["canary"], method=method))
            await rig.ended(2)
        (seen,) = backend.seen
    assert (seen.method, seen.body) == ("a.Books/Find", b"\xff\x00")
    assert rig.calls[0].answer.body == b"found"
    assert rig.dropped() == {"not_comparable": 1}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("OK", "answered"),
        ("INTERNAL", "failed"),
        ("CANCELLED", "failed"),
        ("DEADLINE_EXCEEDED", "timed_out"),
    ],
)
async def test_what_a_copy_ended_with_is_counted_and_handed_on(code: str, kind: str) -> None:
    script = answering(logits=LOGITS) if code == "OK" else failing(grpc.StatusCode[code], "why")
    async with OipBackend(script) as shadow:
        async with copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
        assert rig.calls[0].address == shadow.address
    assert rig.codes == [code]
    assert rig.calls[0].answer.message == ("" if code == "OK" else "why")
    assert getattr(rig.totals(), kind) == rig.totals().sent == 1


async def test_where_a_target_is_dead_the_others_get_the_calls() -> None:
    async with OipBackend(answering(logits=LOGITS)) as well:
        config = copied_config(stable=UNUSED, canary=well.address)
        async with copying(with_targets(config, closed_port(), well.address)) as rig:
            for number in range(1, 21):
                rig.offer(shadowed())
                await rig.ended(number)
            assert rig.totals().circuit == "closed"
    assert rig.codes == ["OK"] * 20


async def test_copies_are_spread_over_all_addresses_of_a_name() -> None:
    ips = [f"127.0.0.{number}" for number in range(1, 4)]
    async with AsyncExitStack() as stack:
        port = port_of(closed_port())
        pods = [OipBackend(answering(logits=LOGITS), address=f"{ip}:{port}") for ip in ips]
        for each in pods:
            await stack.enter_async_context(each)
        config = with_targets(copied_config(stable=UNUSED, canary=UNUSED), f"pods:{port}")
        async with copying(config, resolver=NamesByHand(pods=ips)) as rig:
            endpoints = rig.backends.endpoints("digits", "canary")
            await rig.backends.wait_until(lambda: len(endpoints.ready) == 3, 10)
            for number in range(1, 301):
                rig.offer(shadowed())
                await rig.ended(number)
    spread = Counter(call.address for call in rig.calls)
    assert spread.keys() == {f"{ip}:{port}" for ip in ips}
    assert min(spread.values()) > 60


async def test_an_address_that_keeps_failing_is_out_and_its_neighbours_get_the_copies() -> None:
    async with (
        OipBackend(failing(grpc.StatusCode.UNAVAILABLE)) as bad,
        OipBackend(answering(logits=LOGITS)) as good,
    ):
        two = (bad.address, good.address)
        config = with_targets(copied_config(stable=UNUSED, canary=UNUSED), *two)
        async with copying(config, clock=HandClock()) as rig:
            endpoints = rig.backends.endpoints("digits", "canary")
            await rig.backends.wait_until(lambda: len(endpoints.ready) == 2, 10)
            for number in range(1, 101):
                rig.offer(shadowed())
                await rig.ended(number)
    assert len(bad.seen) == 5
    assert rig.codes.count("OK") == 95


async def test_all_addresses_of_stable_may_be_out_for_copies() -> None:
    """Nobody's answer depends on them."""
    async with OipBackend(failing(grpc.StatusCode.UNAVAILABLE)) as bad:
        config = copied_config(stable=bad.address, canary=UNUSED, route={"noise": "100%"})
        async with copying(config, clock=HandClock()) as rig:
            for number in range(1, 21):
                rig.offer(report(REQUEST, RESPONSE, noise=True))
                await rig.ended(number)
    assert len(bad.seen) == 5
    assert rig.dropped("stable", "noise") == {"circuit_open": 15}


async def test_a_copy_that_a_closing_backend_never_looked_at_is_sent_again_once() -> None:
    async with ClosingBackend(looks=False) as closing:
        async with copying(copied_config(stable=UNUSED, canary=closing.address)) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
        assert (rig.codes, closing.asked) == (["UNIMPLEMENTED"], 2)
    async with ClosingBackend(looks=False, closings=9) as closing:
        async with copying(copied_config(stable=UNUSED, canary=closing.address)) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
        assert (rig.codes, closing.asked) == (["UNAVAILABLE"], 2)


async def test_a_copy_that_a_closing_backend_had_looked_at_is_not_sent_again() -> None:
    async with ClosingBackend(looks=True) as closing:
        async with copying(copied_config(stable=UNUSED, canary=closing.address)) as rig:
            rig.offer(shadowed())
            await rig.ended(1)
        assert (rig.codes, closing.asked) == (["UNAVAILABLE"], 1)


async def test_an_answer_over_the_limit_is_not_kept_and_says_so() -> None:
    large = np.zeros(17 * 1024 * 1024, np.uint8)
    async with (
        OipBackend(answering(logits=large)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        rig.offer(shadowed())
        await rig.ended(1)
    (call,) = rig.calls
    assert (call.answer.code, call.answer.body) == ("RESOURCE_EXHAUSTED", b"")
    assert "at most 16777216" in call.answer.message


@pytest.mark.parametrize(
    ("length", "code"), [(9_000, "DATA_LOSS"), (60_000, "DATA_LOSS"), (70_000, "INTERNAL")]
)
async def test_a_copys_error_that_is_long_is_charged_to_who_sent_it(length: int, code: str) -> None:
    text = (b"grpc-message", b"z" * length)
    async with (
        RawBackend(lambda stream: status(stream, 15, text)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        rig.offer(shadowed())
        await rig.ended(1)
    (call,) = rig.calls
    assert call.answer.code == code
    assert 0 < len(call.answer.message) <= 2_048


async def test_a_copys_ok_without_an_answer_is_an_error() -> None:
    async with (
        RawBackend(lambda stream: status(stream, 0)) as shadow,
        copying(copied_config(stable=UNUSED, canary=shadow.address)) as rig,
    ):
        rig.offer(shadowed())
        await rig.ended(1)
    (call,) = rig.calls
    assert (call.answer.code, call.answer.body) == ("INTERNAL", b"")
