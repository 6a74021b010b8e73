"""Readiness, asked over a real socket."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coalmine.inference import inference_pb2 as oip
from coalmine_router.backends.address import Address
from coalmine_router.backends.registry import Backends
from coalmine_router.control.readiness import Readiness, ReadinessCheck
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.backends_rig import BRISK, NamesByHand, reaching
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
    table = table_of(*targets, match=match)
    async with reaching(table) as backends:
        check = ReadinessCheck(backends, deadline_s=0.5)
        return await check.ask(table, "digits", variant, patient=patient)


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

    assert unwell == Readiness(ready=False, reason=f"{backend.address}: says NOT_SERVING")
    assert not [each for each in backend.seen if each.method == READY]


async def test_a_backend_without_a_health_service_is_ready_once_it_is_there() -> None:
    async with OipBackend() as backend:
        assert await asked("stable", backend.address, match=DEFAULT) == Readiness(ready=True)
    nobody = await asked("stable", NOBODY, match=DEFAULT)

    assert nobody.reason.startswith(f"{NOBODY}: no connection: ")


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
    assert nobody.reason.startswith(f"{NOBODY}: no connection: ")


async def test_of_many_targets_three_reasons_are_told() -> None:
    found = await asked("canary", *(f"127.0.0.1:{port}" for port in range(1, 6)))

    assert found.reason.count("no connection") == 3
    assert found.reason.endswith("; and 2 more")


async def test_the_token_of_the_backends_file_is_shown_and_the_newest_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with OipBackend() as backend:
        blue = Backend("blue", (backend.address,), token_file=str(file))
        table = replace(table_of(backend.address), backends=(blue,))
        async with reaching(table) as backends:
            check = ReadinessCheck(backends)
            assert (await check.ask(table, "digits", "stable")).ready
            file.write_text("second\n")
            endpoints = backends.endpoints("digits", "stable")
            await backends.wait_until(lambda: "second" in str(endpoints.token_metadata), 10)
            assert (await check.ask(table, "digits", "stable")).ready
    shown = [each.values("authorization") for each in backend.seen if each.method == READY]
    assert shown == [["Bearer first"], ["Bearer second"]]


async def test_files_that_are_wrong_are_the_reason_until_they_are_right(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with OipBackend() as backend:
        blue = Backend("blue", (backend.address,), token_file=str(file))
        table = replace(table_of(backend.address), backends=(blue,))
        async with reaching(table, is_lenient=True) as backends:
            check = ReadinessCheck(backends)
            wrong = await check.ask(table, "digits", "stable")
            file.write_text("right\n")
            await backends.wait_until(lambda: backends.endpoints("digits", "stable").is_ready, 10)
            assert (await check.ask(table, "digits", "stable")).ready
    assert wrong.reason == f"can't be called: {file}: no such file or directory"


async def test_a_variant_that_no_table_has_yet_is_not_ready() -> None:
    async with reaching() as backends:
        found = await ReadinessCheck(backends).ask(table_of(NOBODY), "digits", "stable")
    assert found == Readiness(ready=False, reason="backend 'blue' is not known yet")


async def test_an_address_that_a_name_has_only_just_got_is_found_by_who_is_patient() -> None:
    """Looked up as seldom as this, it would be found in a minute."""
    seldom = replace(BRISK, lookup_every_s=60.0)
    async with OipBackend(not_ready) as old:
        port = old.address.rpartition(":")[2]
        names = NamesByHand(canary=["127.0.0.1"])
        table = table_of(f"canary:{port}")
        async with (
            OipBackend(address=f"127.0.0.2:{port}"),
            reaching(table, resolver=names, intervals=seldom) as backends,
        ):
            check = ReadinessCheck(backends)
            assert not (await check.ask(table, "digits", "canary")).ready
            names.names["canary"] = ["127.0.0.1", "127.0.0.2"]
            assert not (await check.ask(table, "digits", "canary")).ready
            assert (await check.ask(table, "digits", "canary", patient=True)).ready


async def test_an_address_that_comes_as_the_time_runs_out_is_asked_all_the_same() -> None:
    async with OipBackend() as backend:
        table = table_of(backend.address)
        async with reaching(table) as backends:
            assert await backends.wait_until(
                lambda: bool(backends.endpoints("digits", "canary").ready), 5
            )
            late: Any = LateBackends(backends)
            found = await ReadinessCheck(late, deadline_s=0.05).ask(table, "digits", "canary")
            assert found == Readiness(ready=True)


class LateBackends:
    """Backends whose addresses are ready when somebody asks a second time, and nobody says so."""

    def __init__(self, backends: Backends) -> None:
        self._endpoints = backends.endpoints("digits", "canary")
        self._is_asked = False
        self.is_settled = False
        self.token_metadata = self._endpoints.token_metadata

    def find_endpoints(self, _route: str, _variant: str) -> Any:
        return self

    async def wait_for_reach_change(self) -> None:
        await asyncio.Event().wait()

    @property
    def ready(self) -> tuple[Address, ...]:
        was_asked, self._is_asked = self._is_asked, True
        return self._endpoints.ready if was_asked else ()

    def troubles_except(self, _asked: list[Address]) -> list[str]:
        return ["nobody was asked"]
