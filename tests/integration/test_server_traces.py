"""Spans, through a real OTLP receiver."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from tests.doubles.otlp_receiver import OtlpReceiver
from tests.doubles.server_rig import infer_request, pixels, serving
from tests.models import Linear, Raises, config, write_model

METHOD = "inference.GRPCInferenceService/ModelInfer"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_model(tmp_path / "models", "digits", {1: Linear()})
    return write_model(tmp_path / "models", "raises", {1: Raises()}).parent


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield running


def traceparent(flags: str = "01") -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{TRACE}-{CALLER}-{flags}"),)


async def test_a_request_continues_its_callers_trace(root: Path, receiver: OtlpReceiver) -> None:
    async with serving(root) as rig:
        request = infer_request("digits", pixels(3), id="r-9")
        await rig.stub.ModelInfer(request, metadata=traceparent())
        spans = await asyncio.to_thread(receiver.wait_for_trace, TRACE, 3)
    (server,) = [each for each in spans if each.name == METHOD]
    assert (server.service, server.kind, server.parent_id) == ("coalmine-server", "SERVER", CALLER)
    assert server.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.status_code": "OK",
        "coalmine.model": "digits",
        "coalmine.model.version": "1",
        "coalmine.request.id": "r-9",
        "coalmine.batch.size": 3,
    }
    queue, execute = sorted(receiver.children(server), key=lambda each: each.start_ns)
    assert [(each.name, each.kind) for each in (queue, execute)] == [
        ("queue", "INTERNAL"),
        ("execute", "INTERNAL"),
    ]
    moments = [server.start_ns, queue.start_ns, queue.end_ns, execute.start_ns]
    moments += [execute.end_ns, server.end_ns]
    assert moments == sorted(moments)
    assert server.event("queue").time_ns == queue.start_ns
    assert server.event("compute").time_ns == execute.start_ns


async def test_requests_of_one_stream_have_its_methods_name(
    root: Path, receiver: OtlpReceiver
) -> None:
    async with serving(root) as rig:
        requests = [infer_request("digits", pixels(), id=each) for each in ("a", "b")]
        answers = rig.stub.ModelStreamInfer(iter(requests), metadata=traceparent())
        assert len([each async for each in answers]) == 2
        spans = await asyncio.to_thread(receiver.wait_for_trace, TRACE, 6)
    servers = [each for each in spans if each.kind == "SERVER"]
    assert {each.attributes["coalmine.request.id"] for each in servers} == {"a", "b"}
    method = "inference.GRPCInferenceService/ModelStreamInfer"
    told = [(each.name, each.attributes["rpc.method"], each.parent_id) for each in servers]
    assert told == [(method, method, CALLER)] * 2


async def test_requests_that_ran_as_one_batch_link_each_other(
    tmp_path: Path, receiver: OtlpReceiver
) -> None:
    full = config(max_batch_size=3, batching={"max_delay": "10s"})
    write_model(tmp_path, "digits", {1: Linear()}, full)
    async with serving(tmp_path) as rig:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(rig.infer("digits", pixels(), id=str(number)))
        await asyncio.to_thread(receiver.wait_for_named, "execute", 3)
        servers = await asyncio.to_thread(receiver.wait_for_named, METHOD, 3)
    for server in servers:
        (execute,) = [each for each in receiver.children(server) if each.name == "execute"]
        others = {(each.trace_id, each.span_id) for each in servers if each is not server}
        assert set(execute.links) == others
        assert len(execute.links) == 2
        assert execute.attributes == {"coalmine.batch.size": 3}


async def test_a_models_failure_is_logged_with_its_server_span(
    root: Path, receiver: OtlpReceiver
) -> None:
    async with serving(root) as rig:
        with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError):
            await rig.infer("raises", pixels(value=-1.0))
        (span,) = await asyncio.to_thread(receiver.wait_for_named, METHOD)
    (log,) = [each for each in logs if each["event"] == "model_failed"]
    assert (log["trace_id"], log["span_id"]) == (span.trace_id, span.span_id)


async def test_a_failed_request_is_an_error_span_with_its_code(
    root: Path, receiver: OtlpReceiver
) -> None:
    async with serving(root) as rig:
        with pytest.raises(grpc.aio.AioRpcError):
            await rig.infer("raises", pixels(value=-1.0))
        (span,) = await asyncio.to_thread(receiver.wait_for_named, METHOD)
    assert span.status == "ERROR"
    assert "ValueError: negative pixel" in span.status_text
    assert span.attributes["rpc.status_code"] == "INTERNAL"


async def test_a_refused_request_has_a_span_that_is_no_error(
    root: Path, receiver: OtlpReceiver
) -> None:
    async with serving(root) as rig:
        with pytest.raises(grpc.aio.AioRpcError):
            await rig.infer("nobody", pixels())
        (span,) = await asyncio.to_thread(receiver.wait_for_named, METHOD)
    assert (span.status, span.attributes["rpc.status_code"]) == ("UNSET", "NOT_FOUND")
    assert receiver.children(span) == []


async def test_what_the_caller_does_not_sample_is_not_sent(
    root: Path, receiver: OtlpReceiver
) -> None:
    async with serving(root) as rig:
        await rig.stub.ModelInfer(infer_request("digits", pixels()), metadata=traceparent("00"))
        await rig.infer("digits", pixels(), id="kept")
        await asyncio.to_thread(receiver.wait_for_named, METHOD)
    assert [each.attributes["coalmine.request.id"] for each in receiver.named(METHOD)] == ["kept"]


async def test_the_configured_sampler_decides_where_no_caller_did(
    root: Path, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with serving(root) as rig:
        await rig.infer("digits", pixels())
        await rig.stub.ModelInfer(infer_request("digits", pixels()), metadata=traceparent())
        await asyncio.to_thread(receiver.wait_for_trace, TRACE, 3)
    assert {each.trace_id for each in receiver.spans} == {TRACE}


async def test_spans_that_are_still_queued_are_sent_at_the_end(
    root: Path, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with serving(root) as rig:
        await rig.infer("digits", pixels())
    assert len(receiver.named(METHOD)) == 1


async def test_without_an_endpoint_traces_go_to_files_where_a_folder_is_given(
    root: Path, tmp_path: Path
) -> None:
    async with serving(root, traces=tmp_path / "traces") as rig:
        await rig.infer("digits", pixels())
    (path,) = (tmp_path / "traces").glob("traces-*.jsonl")
    names = [
        span["name"]
        for line in path.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted(names) == ["execute", METHOD, "queue"]
