"""Every error class is shown arriving as its code, through a real server."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from coalmine import errors
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import (
    RouteControlServicer,
    RouteControlStub,
    add_RouteControlServicer_to_server,
)
from coalmine.status import answering, status_of
from tests.doubles.waiting import eventually


def classes(base: type[errors.CoalmineError]) -> Iterator[type[errors.CoalmineError]]:
    for each in base.__subclasses__():
        yield each
        yield from classes(each)


# Those of other modules' tests may be subclasses too.
ALL = [each for each in classes(errors.CoalmineError) if each.__module__ == errors.__name__]

CODES = {
    "InvalidRequest": grpc.StatusCode.INVALID_ARGUMENT,
    "InvalidTensor": grpc.StatusCode.INVALID_ARGUMENT,
    "NotFound": grpc.StatusCode.NOT_FOUND,
    "NotOffered": grpc.StatusCode.UNIMPLEMENTED,
    "Unavailable": grpc.StatusCode.UNAVAILABLE,
    "Overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DeadlineSpent": grpc.StatusCode.DEADLINE_EXCEEDED,
    "ModelFailed": grpc.StatusCode.INTERNAL,
    "Unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "PermissionDenied": grpc.StatusCode.PERMISSION_DENIED,
    "StaleRevision": grpc.StatusCode.ABORTED,
    "NotReady": grpc.StatusCode.FAILED_PRECONDITION,
    "PartlyDone": grpc.StatusCode.ABORTED,
    "LoadFailed": grpc.StatusCode.FAILED_PRECONDITION,
}

SECRET = "password=hunter2"


class Raising(RouteControlServicer):
    """Raises `error` from every method, once it answered `first` times."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()

    @answering
    async def GetRoute(self, request: Any, context: Any) -> Any:
        if self.error is not None:
            raise self.error
        return pb.RouteStatus(revision=1)

    @answering
    async def WatchRoute(self, request: Any, context: Any) -> Any:  # type: ignore[override]
        await context.write(pb.RouteStatus(revision=1))
        if self.error is not None:
            raise self.error

    @answering
    async def ListRoutes(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")

    @answering
    async def GetHistory(self, request: Any, context: Any) -> Any:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    SetWeights: Any = GetRoute
    SetShadow: Any = GetRoute
    ListTrials: Any = GetRoute
    ListMismatches: Any = GetRoute
    GetMismatch: Any = GetRoute


@pytest.fixture
async def servicer() -> Raising:
    return Raising()


@pytest.fixture
async def stub(servicer: Raising) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    add_RouteControlServicer_to_server(servicer, server)
    async with started(server) as channel:
        yield RouteControlStub(channel)


@asynccontextmanager
async def started(server: grpc.aio.Server) -> AsyncIterator[grpc.aio.Channel]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def unary(stub: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetRoute(pb.GetRouteRequest())
    return caught.value


async def streamed(stub: Any) -> grpc.aio.AioRpcError:
    stream = stub.WatchRoute(pb.WatchRouteRequest())
    assert (await stream.read()).revision == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    return caught.value


both = pytest.mark.parametrize("call", [unary, streamed])


def test_every_error_class_has_its_code_in_this_table() -> None:
    assert {each.__name__ for each in ALL} == set(CODES)
    assert {each.__name__: status_of(each("")) for each in ALL} == CODES


@both
@pytest.mark.parametrize("error", ALL, ids=lambda each: each.__name__)
async def test_an_error_arrives_as_its_code_with_its_text(
    call: Any, error: Any, servicer: Raising, stub: Any
) -> None:
    servicer.error = error("model 'digits': so it is")

    arrived = await call(stub)

    assert arrived.code() is CODES[error.__name__]
    assert arrived.details() == "model 'digits': so it is"


@both
@pytest.mark.parametrize("sent", ["m" * 20_000, "é" * 10_000, "\N{BIRD}" * 5_000], ids=len)
async def test_a_text_too_long_to_arrive_is_cut_and_keeps_its_code(
    call: Any, sent: str, servicer: Raising, stub: Any
) -> None:
    servicer.error = errors.NotFound(f"model '{sent}' is unknown")

    arrived = await call(stub)

    assert arrived.code() is grpc.StatusCode.NOT_FOUND
    details = arrived.details() or ""
    assert details.startswith(f"model '{sent[:100]}")
    assert details.endswith(" …")
    assert len(details.encode()) < 2_100


@both
async def test_an_unexpected_error_arrives_as_internal_with_nothing_of_its_text(
    call: Any, servicer: Raising, stub: Any
) -> None:
    servicer.error = RuntimeError(SECRET)

    with capture_logs() as logs:
        arrived = await call(stub)

    assert arrived.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(arrived)
    assert "RuntimeError" not in str(arrived)
    (log,) = logs
    assert arrived.details() == f"internal error, incident {log['incident']}"
    assert log["exc_info"] is servicer.error


async def test_an_unexpected_error_is_logged_with_its_callers_trace(
    servicer: Raising, stub: Any
) -> None:
    servicer.error = RuntimeError(SECRET)
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError):
        await stub.GetRoute(
            pb.GetRouteRequest(), metadata=(("traceparent", f"00-{trace}-{span}-00"),)
        )

    assert [(each["trace_id"], each["span_id"]) for each in logs] == [(trace, span)]


@pytest.mark.parametrize("kind", [errors.ModelFailed, RuntimeError])
async def test_an_error_keeps_nothing_of_the_call_that_it_ended(kind: type[Exception]) -> None:
    """Or refused requests would fill the memory until garbage is collected."""

    class Request:
        pass

    def read(_: bytes) -> Request:
        made = Request()
        held.append(weakref.ref(made))
        return made

    @answering
    async def refuse(self: Any, request: Request, context: Any) -> bytes:
        try:
            int(f"{request}")
        except ValueError as below:
            raise kind("above") from below
        return b""

    held: list[weakref.ref[Request]] = []
    method: Any = grpc.unary_unary_rpc_method_handler(partial(refuse, None), read)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"M": method}),))
    gc.disable()
    try:
        async with started(server) as channel:
            call: Any = channel.unary_unary("/s/M")
            with capture_logs(), pytest.raises(grpc.aio.AioRpcError):
                await call(b"")
            # The caller may hear of it before the handler's own frame has gone.
            await eventually(lambda: [each() for each in held] == [None])
    finally:
        gc.enable()


async def test_two_unexpected_errors_are_two_incidents(servicer: Raising, stub: Any) -> None:
    servicer.error = ValueError("x")

    with capture_logs():
        assert (await unary(stub)).details() != (await unary(stub)).details()


async def test_a_start_error_inside_a_call_is_unexpected_too(servicer: Raising, stub: Any) -> None:
    servicer.error = errors.StartError(SECRET)

    with capture_logs():
        assert (await unary(stub)).code() is grpc.StatusCode.INTERNAL


async def test_an_abort_by_hand_keeps_its_code(stub: Any) -> None:
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListRoutes(pb.ListRoutesRequest())

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "by hand")
    assert logs == []


async def test_a_method_that_raises_nothing_answers(stub: Any) -> None:
    assert (await stub.GetRoute(pb.GetRouteRequest())).revision == 1
    assert [each.revision async for each in stub.WatchRoute(pb.WatchRouteRequest())] == [1]


async def test_a_cancelled_call_is_cancelled_and_no_incident(servicer: Raising, stub: Any) -> None:
    with capture_logs() as logs:
        call = stub.GetHistory(pb.GetHistoryRequest())
        async with asyncio.timeout(10):
            await servicer.waiting.wait()
            call.cancel()
            await servicer.cancelled.wait()

    assert logs == []


async def test_an_error_of_a_call_whose_caller_is_gone_is_no_incident() -> None:
    """gRPC raises InternalError there, and UsageError for each further attempt to end the call."""

    class Hangup:
        def invocation_metadata(self) -> tuple[()]:
            return ()

        async def abort(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
            said.append(code)
            raise grpc.aio.InternalError('Failed "execute_batch"')

    async def unreached(self: Any, request: Any, context: Any) -> Any:
        return request

    said: list[grpc.StatusCode] = []
    refused: Any = errors.NotFound("no such model")
    gone: Any = Hangup()
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await answering(unreached)(None, refused, gone)
    assert said == [grpc.StatusCode.NOT_FOUND]
    assert logs == []


async def test_a_request_that_is_an_error_never_reaches_its_method() -> None:
    """A deserialiser returns the error: gRPC answers UNKNOWN to one that raises."""

    class Aborted(Exception):
        """Ends the call, as gRPC's does."""

    class FakeContext:
        async def abort(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
            said.append((code, details))
            raise Aborted

    @answering
    async def method(self: Any, request: Any, context: Any) -> Any:
        said.append("called")
        return request

    said: list[Any] = []
    malformed: Any = errors.InvalidRequest("malformed message")
    context: Any = FakeContext()
    with pytest.raises(Aborted):
        await method(None, malformed, context)
    assert said == [(grpc.StatusCode.INVALID_ARGUMENT, "malformed message")]
