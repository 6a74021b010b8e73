"""Bytes that are no request, at health and control: answered, and logged by nobody."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2
from coalmine.control.v1.control_pb2_grpc import add_ReportsServicer_to_server
from coalmine.listener.decoded_methods import DecodedMethods
from coalmine.process.answer_gate import AnswerGate
from coalmine_router.observer.intake import ReportIntake
from coalmine_router.observer.totals import ReportTotals
from coalmine_router.proxy.listener import DataListener, ListenerSettings
from tests.doubles.callers import TOKENS, refusal, write_tokens
from tests.doubles.control_rig import ControlRig, router_config
from tests.doubles.server_rig import serving
from tests.models import Linear, config, write_model

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
CONTROL = control_pb2.DESCRIPTOR.services_by_name


def troubles(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged with a traceback."""
    return [each.getMessage() for each in caplog.records if each.exc_info]


async def expect_refused(channel: grpc.aio.Channel, service: Any) -> None:
    """Send bytes that are no request to each method of a service."""
    for each in service.methods:
        method = f"{service.full_name}/{each.name}"
        call: Any = channel.stream_stream(f"/{method}")
        told = await refusal(call(iter([b"\xff\xff"]), timeout=10).read())
        assert told == ("INVALID_ARGUMENT", f"{method}: malformed message")


async def test_health_of_a_server_refuses_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path, "digits", {1: Linear()}, config())
    async with serving(tmp_path) as rig:
        await expect_refused(rig.channel, HEALTH)
    assert not troubles(caplog)


async def test_health_of_a_proxy_refuses_them(caplog: pytest.LogCaptureFixture) -> None:
    nothing = grpc.method_handlers_generic_handler("no.Service", {})
    listener = DataListener(ListenerSettings("127.0.0.1:0"), nothing, SystemClock())
    async with grpc.aio.insecure_channel(await listener.open()) as channel:
        await expect_refused(channel, HEALTH)
    await listener.close(1.0, AnswerGate(), lambda: None)
    assert not troubles(caplog)


@pytest.mark.parametrize("has_tokens", [False, True])
async def test_health_control_and_feed_refuse_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, has_tokens: bool
) -> None:
    found = router_config(tmp_path, "127.0.0.1:1")
    if has_tokens:
        tokens = write_tokens(tmp_path / "tokens.yaml", "operator")
        control = found.control.model_copy(update={"tokens": tokens})
        found = found.model_copy(update={"control": control})
    async with ControlRig(found, token=TOKENS["operator"] if has_tokens else None) as rig:
        await expect_refused(rig.channel, HEALTH)
        await expect_refused(rig.channel, CONTROL["RouteControl"])
        if not has_tokens:
            feed: Any = rig.channel.stream_stream("/coalmine.control.v1.TableFeed/Follow")
            stream = feed(iter([b"\xff\xff"]), timeout=10)
            await stream.read()  # the table
            assert (await refusal(stream.read()))[0] == "INVALID_ARGUMENT"
    assert not troubles(caplog)


async def test_reports_refuse_them(caplog: pytest.LogCaptureFixture) -> None:
    server = grpc.aio.server()
    intake = ReportIntake(ReportTotals(), lambda _: None)
    readable: Any = DecodedMethods(server)
    add_ReportsServicer_to_server(intake, readable)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await expect_refused(channel, CONTROL["Reports"])
    await server.stop(None)
    assert not troubles(caplog)
