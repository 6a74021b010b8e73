"""What callers learn by reflection: every symbol, with the files it needs, or what is wrong."""

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb
from structlog.testing import capture_logs

from coalmine.control.v1 import control_pb2
from coalmine.inference import SERVICE, inference_pb2
from coalmine.listener.reflection import (
    SERVICE_V1,
    SERVICE_V1ALPHA,
    add_reflection,
    reflection_limit,
)
from coalmine.listener.stream_limit import StreamLimit, StreamRefused
from coalmine.listener.symbols import symbols_of

NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
Request: Any = pb.ServerReflectionRequest


def importing() -> Any:
    """Return what stands for a generated module whose file imports another, which imports one."""
    pool = DescriptorPool()
    for name, imported in (("c", None), ("b", "c"), ("a", "b")):
        file = FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
        file.message_type.add(name="It")
        if imported is not None:
            file.dependency.append(f"{imported}.proto")
            field = file.message_type[0].field.add(name="it", number=1, label=1, type=11)
            field.type_name = f".{imported}.It"
        pool.Add(file)
    return SimpleNamespace(DESCRIPTOR=pool.FindFileByName("a.proto"))


@contextlib.asynccontextmanager
async def reflecting(limit: StreamLimit) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    add_reflection(server, (SERVICE,), (inference_pb2, control_pb2, importing()), limit)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield channel
        finally:
            await server.stop(None)


def asked(channel: grpc.aio.Channel, service: str = SERVICE_V1) -> Any:
    return channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    async with reflecting(reflection_limit()) as made:
        yield made


def files_in(answer: pb.ServerReflectionResponse) -> list[FileDescriptorProto]:
    sent = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(each) for each in sent]


@pytest.mark.parametrize("service", [SERVICE_V1, SERVICE_V1ALPHA])
async def test_each_version_lists_both(channel: grpc.aio.Channel, service: str) -> None:
    [answer] = [each async for each in asked(channel, service)(iter([Request(list_services="")]))]
    assert [each.name for each in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        SERVICE_V1,
        SERVICE_V1ALPHA,
        SERVICE,
    ]


@pytest.mark.parametrize("service", [SERVICE_V1, SERVICE_V1ALPHA])
@pytest.mark.parametrize(
    ("module", "some"),
    [
        (inference_pb2, "inference.GRPCInferenceService.ModelInfer"),
        (control_pb2, "coalmine.control.v1.RouteTable.revision"),
    ],
)
async def test_each_symbol_of_a_file_brings_that_file(
    channel: grpc.aio.Channel, service: str, module: Any, some: str
) -> None:
    file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    symbols = list(symbols_of(file))
    assert some in symbols

    requests = (Request(file_containing_symbol=each) for each in symbols)
    answers = [each async for each in asked(channel, service)(requests)]

    assert [each.original_request.file_containing_symbol for each in answers] == symbols
    assert all(files_in(each) == [file] for each in answers)


async def test_both_versions_are_described_by_their_own_names(channel: grpc.aio.Channel) -> None:
    names = (SERVICE_V1, SERVICE_V1ALPHA)
    requests = [Request(file_containing_symbol=f"{each}.ServerReflectionInfo") for each in names]
    answers = [each async for each in asked(channel)(iter(requests))]
    for name, answer in zip(names, answers, strict=True):
        [file] = files_in(answer)
        pool = DescriptorPool()
        pool.Add(file)
        method = pool.FindServiceByName(name).methods_by_name["ServerReflectionInfo"]
        assert method.input_type.full_name == f"{file.package}.ServerReflectionRequest"


async def test_a_file_comes_with_all_that_it_imports(channel: grpc.aio.Channel) -> None:
    requests = [Request(file_containing_symbol="a.It.it"), Request(file_by_filename="b.proto")]
    by_symbol, by_name = [files_in(each) async for each in asked(channel)(iter(requests))]
    assert [each.name for each in by_symbol] == ["a.proto", "b.proto", "c.proto"]
    assert [each.name for each in by_name] == ["b.proto", "c.proto"]


WRONG = [
    (Request(file_containing_symbol="inference.Nothing"), NOT_FOUND, "symbol 'inference.Nothing'"),
    (Request(file_containing_symbol=""), NOT_FOUND, "symbol ''"),
    (Request(file_by_filename="nothing.proto"), NOT_FOUND, "file 'nothing.proto'"),
    (Request(all_extension_numbers_of_type="a.Nothing"), NOT_FOUND, "message 'a.Nothing'"),
    (
        Request(file_containing_extension={"containing_type": "a.It", "extension_number": 9}),
        NOT_FOUND,
        "extension 9 of 'a.It'",
    ),
    (Request(), INVALID_ARGUMENT, "asks for nothing"),
    (Request(file_containing_symbol="x" * 5_000), INVALID_ARGUMENT, "too long"),
]


async def test_a_wrong_question_is_answered_and_the_stream_goes_on(
    channel: grpc.aio.Channel,
) -> None:
    last = Request(all_extension_numbers_of_type="a.It")
    answers = [
        each async for each in asked(channel)(iter([*(request for request, _, _ in WRONG), last]))
    ]
    for (_, code, text), answer in zip(WRONG, answers[:-1], strict=True):
        assert answer.error_response.error_code == code
        assert text in answer.error_response.error_message
    assert answers[-1].all_extension_numbers_response.base_type_name == "a.It"


async def test_an_answer_holds_a_short_request_and_no_long_one(channel: grpc.aio.Channel) -> None:
    requests = [Request(host="h", list_services=each) for each in ("*", "x" * 5_000)]
    short, long = [each async for each in asked(channel)(iter(requests))]
    assert (short.valid_host, short.original_request) == ("h", requests[0])
    assert long.ByteSize() < 100


async def test_streams_over_the_bound_are_refused_and_counted() -> None:
    limit = StreamLimit("reflection streams", 2)
    async with reflecting(limit) as channel:
        held = [asked(channel)() for _ in range(2)]
        for each in held:
            await each.write(Request(list_services=""))
            await each.read()
        with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked(channel)(iter([Request(list_services="")])).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [each["event"] for each in logs] == ["reflection_streams_turned_away"]
        [family] = StreamRefused("of_a_test", limit).collect()
        assert [each.value for each in family.samples] == [1]
        for each in held:
            await each.done_writing()
            assert await each.read() is grpc.aio.EOF
        assert [each async for each in asked(channel)(iter([Request(list_services="")]))]


async def test_bytes_that_are_no_request_are_answered_and_logged_by_nobody(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    call: Any = channel.stream_stream(
        f"/{SERVICE_V1}/ServerReflectionInfo",
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )
    listing = Request(list_services="").SerializeToString()
    broken, listed = [each async for each in call(iter([b"\xff\xff", listing]))]
    assert broken.error_response.error_code == INVALID_ARGUMENT
    assert broken.error_response.error_message == "the request cannot be read"
    assert listed.list_services_response.service
    assert not caplog.records
