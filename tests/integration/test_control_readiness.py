"""Readiness, asked over a real socket."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from coalmine.clock import SystemClock
from coalmine.inference import inference_pb2 as oip
from coalmine_router.channels import Channels
from coalmine_router.control.readiness import Readiness, ReadinessCheck
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.hand_clock import HandClock
from tests.doubles.oip_backend import READY, Answer, OipBackend, Seen, hanging

NOBODY = "127.0.0.1:1"


def table_of(*targets: str, match: Match = Match("digits")) -> RouteTable:  # noqa: B008 - frozen
    variants = (
        Variant("stable", "blue", weight_bp=10_000),
        Variant("canary", "blue", model="digits-int8", version="7"),
    )
    return RouteTable(1, (Backend("blue", targets),), (Route("digits", match, variants),))


def not_ready(_: Seen) -> Answer:
    return Answer(oip.ModelReadyResponse(ready=False).SerializeToString())


DEFAULT, SERVICE = Match(is_default=True), Match(service="a.B")


async def asked(
    variant: str,
    *targets: str,
    patient: bool = False,
    match: Match = Match("digits"),  # noqa: B008 - frozen
) -> Readiness:
    channels = Channels(SystemClock())
    check = ReadinessCheck(channels, deadline_s=0.5)
    try:
        return await check.ask(table_of(*targets, match=match), "digits", variant, patient=patient)
    finally:
        await channels.close()


async def test_the_variants_own_model_and_version_are_asked_for() -> None:
    async with OipBackend() as backend:
        assert await asked("canary", backend.address) == Readiness(ready=True)
        assert await asked("stable", backend.address) == Readiness(ready=True)

    questions = [oip.ModelReadyRequest.FromString(each.body) for each in backend.seen]
    assert [(each.name, each.version) for each in questions] == [
        ("digits-int8", "7"),
        ("digits", ""),
    ]
    assert {each.method for each in backend.seen} == {READY}


@pytest.mark.parametrize("match", [DEFAULT, SERVICE], ids=str)
async def test_where_callers_name_the_model_the_backends_health_is_asked(match: Match) -> None:
    async with OipBackend(health=True) as backend:
        await backend.says(serving=True)
        assert await asked("stable", backend.address, match=match) == Readiness(ready=True)
        await backend.says(serving=False)
        unwell = await asked("stable", backend.address, match=match)

    assert unwell == Readiness(ready=False, reason=f"health is NOT_SERVING on {backend.address}")
    assert not [each for each in backend.seen if each.method == READY]


async def test_a_backend_without_a_health_service_is_ready_once_it_is_there() -> None:
    async with OipBackend() as backend:
        assert await asked("stable", backend.address, match=DEFAULT) == Readiness(ready=True)
    nobody = await asked("stable", NOBODY, match=DEFAULT)

    assert nobody.reason.startswith(f"{NOBODY} is unreachable: UNAVAILABLE")


async def test_of_a_default_route_a_variant_with_its_own_model_is_asked_for_it() -> None:
    async with OipBackend(not_ready) as backend:
        found = await asked("canary", backend.address, match=DEFAULT)

    assert found.reason == f"model 'digits-int8' version 7 is not ready on {backend.address}"


async def test_one_ready_target_is_enough_and_the_others_are_not_waited_for() -> None:
    async with OipBackend() as good, OipBackend(hanging()) as hangs:
        began = time.monotonic()
        found = await asked("canary", hangs.address, NOBODY, good.address, patient=True)
        took_s = time.monotonic() - began

    assert found.ready
    assert took_s < 0.4


async def test_a_model_that_is_not_ready_is_named_with_the_place() -> None:
    async with OipBackend(not_ready) as backend:
        found = await asked("canary", backend.address)

    assert found == Readiness(
        ready=False, reason=f"model 'digits-int8' version 7 is not ready on {backend.address}"
    )


async def test_a_backend_out_of_reach_or_silent_is_told_from_one_that_says_no() -> None:
    async with OipBackend(hanging()) as hangs:
        silent = await asked("canary", hangs.address)
    nobody = await asked("canary", f"dns:///{NOBODY}")

    assert silent.reason.startswith(f"{hangs.address} is unreachable: DEADLINE_EXCEEDED")
    assert nobody.reason.startswith(f"{NOBODY} is unreachable: UNAVAILABLE")


async def test_of_many_targets_three_reasons_are_told() -> None:
    found = await asked("canary", *(f"127.0.0.1:{port}" for port in range(1, 6)))

    assert found.reason.count("unreachable") == 3
    assert found.reason.endswith("; and 2 more")


async def test_a_closed_channel_is_an_answer_and_no_error() -> None:
    channels = Channels(SystemClock())
    table = table_of(NOBODY)
    await channels.channel(table.backends[0], NOBODY).close()
    found = await ReadinessCheck(channels).ask(table, "digits", "stable")

    assert not found.ready


async def test_the_token_of_the_backends_file_is_shown_and_the_newest_one(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", HandClock()
    file.write_text("first\n")
    channels = Channels(clock)
    async with OipBackend() as backend:
        blue = Backend("blue", (backend.address,), token_file=str(file))
        table = replace(table_of(backend.address), backends=(blue,))
        check = ReadinessCheck(channels)
        assert (await check.ask(table, "digits", "stable")).ready
        file.write_text("second\n")
        clock.now_ns = 10**9
        assert (await check.ask(table, "digits", "stable")).ready
    shown = [each.values("authorization") for each in backend.seen]
    assert shown == [["Bearer first"], ["Bearer second"]]
    await channels.close()
