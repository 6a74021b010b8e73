"""Whether rules name outputs that there are: asked of stable once, when the rules are new."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coalmine.clock import SystemClock
from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as oip
from coalmine_router.config.file import RouterConfig
from coalmine_router.observer.outputs import OutputsCheck
from coalmine_router.observer.route_settings import settings_of
from coalmine_router.table import RouteTable
from tests.doubles.backends_rig import reaching
from tests.doubles.oip_backend import SERVICE, Answer, OipBackend, Script, echo, hanging
from tests.doubles.reports import UNUSED, router_config, settings

METADATA = f"{SERVICE}/ModelMetadata"
TYPO = {"compare": {"outputs": {"logitz": {"rule": "exact"}}}}
RIGHT = {"compare": {"outputs": {"logits": {"rule": "exact"}}}}


def having(*outputs: str) -> Script:
    """Return a script of a model with these outputs."""
    tensors = [oip.ModelMetadataResponse.TensorMetadata(name=name) for name in outputs]
    body = oip.ModelMetadataResponse(name="digits", outputs=tensors).SerializeToString()
    return lambda seen: Answer(body) if seen.method == METADATA else echo(seen)


async def check(config: RouterConfig, noted: Path, *, table: RouteTable | None = None) -> list[str]:
    """Run the check; return what was logged. Raises StartError."""
    routes = {name: settings_of(each) for name, each in settings(config).items()}
    asked, wrong = table or config.table(), None
    async with reaching(asked) as backends:
        with capture_logs() as logs:
            try:
                await OutputsCheck(backends, noted).run(asked, routes)
            except StartError as error:
                wrong = error
    if wrong is not None:
        raise wrong
    return [each["event"] for each in logs if each["event"].startswith("outputs_")]


def config_of(address: str, **route: Any) -> RouterConfig:
    return router_config(stable=address, canary=UNUSED, route=route)


async def test_a_rule_for_an_output_that_stable_has_not_is_refused_naming_those_it_has(
    tmp_path: Path,
) -> None:
    async with OipBackend(having("scores", "logits")) as stable:
        with pytest.raises(StartError) as refused:
            await check(config_of(stable.address, **TYPO), tmp_path / "known")
    assert str(refused.value) == (
        "route 'digits': compare.outputs names 'logitz', but the model of 'stable' has "
        "logits, scores"
    )
    assert not (tmp_path / "known").exists(), "asked again, once it is mended"


async def test_the_model_is_asked_that_stable_calls(tmp_path: Path) -> None:
    async with OipBackend(having("logits")) as stable:
        variants = {"stable": {"backend": "stable", "model": "digits-b", "version": "7"}}
        config = config_of(stable.address, variants=variants, **RIGHT)
        await check(config, tmp_path / "known")
        (asked,) = stable.seen
    request = oip.ModelMetadataRequest.FromString(asked.body)
    assert (request.name, request.version) == ("digits-b", "7")


async def test_rules_that_were_right_are_not_asked_about_again(tmp_path: Path) -> None:
    async with OipBackend(having("logits")) as stable:
        config = config_of(stable.address, **RIGHT)
        await check(config, tmp_path / "known")
        stable.script = having("scores")
        await check(config, tmp_path / "known")
        assert len(stable.seen) == 1, "a model that changed must not keep a restarted router down"

        table = config.table()
        moved = table.route("digits").with_weights({"canary": 2_500})
        other = RouteTable(table.revision + 1, table.backends, (moved,))
        await check(config, tmp_path / "known", table=other)
        assert len(stable.seen) == 1, "neither must weights that somebody has moved"


async def test_new_rules_are_asked_about_although_others_were_right(tmp_path: Path) -> None:
    async with OipBackend(having("logits")) as stable:
        await check(config_of(stable.address, **RIGHT), tmp_path / "known")
        with pytest.raises(StartError, match="logitz"):
            await check(config_of(stable.address, **TYPO), tmp_path / "known")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"digits": 7}'])
async def test_a_note_that_is_damaged_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "known").write_text(text)
    async with OipBackend(having("logits")) as stable:
        with pytest.raises(StartError, match="logitz"):
            await check(config_of(stable.address, **TYPO), tmp_path / "known")


async def test_a_note_that_cannot_be_written_keeps_nobody_from_starting(tmp_path: Path) -> None:
    async with OipBackend(having("logits")) as stable:
        said = await check(config_of(stable.address, **RIGHT), tmp_path / "no" / "folder")
    assert said == ["outputs_not_noted"]


@pytest.mark.parametrize("script", [echo, hanging(), having()], ids=["refuses", "hangs", "none"])
async def test_a_stable_that_cannot_say_keeps_nobody_from_starting(
    tmp_path: Path, script: Script
) -> None:
    async with OipBackend(script) as stable:
        config = config_of(stable.address, **TYPO)
        await check(config, tmp_path / "known")
        stable.script = having("logits")
        with pytest.raises(StartError):
            await check(config, tmp_path / "known")


async def test_a_stable_that_is_not_there_is_noted_in_the_log_and_asked_next_time(
    tmp_path: Path,
) -> None:
    config = config_of(UNUSED, **TYPO)
    assert await check(config, tmp_path / "known") == ["outputs_not_checked"]
    assert await check(config, tmp_path / "known") == ["outputs_not_checked"]


async def test_routes_whose_backends_hang_are_asked_side_by_side(tmp_path: Path) -> None:
    """One after the other, eight of them would take eight seconds."""
    async with OipBackend(hanging()) as stable:
        route = {"variants": {"stable": {"backend": "stable"}}, **TYPO}
        names = [f"m{n}" for n in range(8)]
        routes = [{"name": name, "match": {"model": name}, **route} for name in names]
        backends = {"stable": {"targets": [stable.address]}}
        config = RouterConfig.model_validate({"backends": backends, "routes": routes})
        began_ns = SystemClock().monotonic_ns()
        said = await check(config, tmp_path / "known")
        assert SystemClock().monotonic_ns() - began_ns < 5 * 10**9
    assert said == ["outputs_not_checked"] * 8


async def test_rules_that_name_no_output_and_other_services_are_not_asked_about(
    tmp_path: Path,
) -> None:
    async with OipBackend(having("logits")) as stable:
        await check(config_of(stable.address), tmp_path / "known")
        service = {"match": {"service": "shop.Cart"}, **TYPO}
        variants = {"variants": {"stable": {"backend": "stable"}}}
        await check(config_of(stable.address, **service, **variants), tmp_path / "known")
        assert stable.seen == []
