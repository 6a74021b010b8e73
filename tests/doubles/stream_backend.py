"""A backend of ModelStreamInfer, in this process: it does with each stream what a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from coalmine.inference import inference_pb2 as pb
from coalmine.listener.call_cancellation import shield_operation
from tests.doubles.oip_backend import SERVICE, Metadata

STREAM = f"{SERVICE}/ModelStreamInfer"


@dataclass
class Stream:
    """One stream: what came, and how to answer."""

    metadata: Metadata
    time_remaining_s: float | None
    context: Any
    asked: list[pb.ModelInferRequest] = field(default_factory=list)
    is_half_closed: bool = False
    is_cancelled: bool = False

    async def next(self) -> pb.ModelInferRequest | None:
        """Return the next request; None: the caller has no more."""
        body = await shield_operation(self.context.read())
        if not isinstance(body, bytes):
            self.is_half_closed = True
            return None
        request = pb.ModelInferRequest.FromString(body)
        self.asked.append(request)
        return request

    async def answer(self, request: pb.ModelInferRequest, error: str = "") -> None:
        """Answer a request by its id, or as one that failed."""
        answer = pb.ModelStreamInferResponse(error_message=error)
        answer.infer_response.model_name = request.model_name
        answer.infer_response.id = request.id
        await self.context.write(answer.SerializeToString())

    def values(self, key: str) -> list[str | bytes]:
        return [value for name, value in self.metadata if name == key]


Does = Callable[[Stream], Awaitable[None]]


async def once(stream: Stream) -> None:
    """Answer the first request, and wait to be cancelled: who reads doesn't hear of that."""
    request = await stream.next()
    assert request is not None
    await stream.answer(request)
    await asyncio.Event().wait()


async def in_turn(stream: Stream) -> None:
    """Answer each request as it comes, until the caller has no more."""
    while (request := await stream.next()) is not None:
        await stream.answer(request)


class StreamBackend:
    """`streams` are those that came; `does` may be replaced at any time."""

    def __init__(self, does: Does) -> None:
        self.does = does
        self.address = ""
        self.streams: list[Stream] = []
        self.server: grpc.aio.Server | None = None

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what offers the one method."""
        method: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {"ModelStreamInfer": method})

    async def _serve(self, _requests: object, context: Any) -> None:
        stream = Stream(tuple(context.invocation_metadata()), context.time_remaining(), context)
        self.streams.append(stream)
        try:
            await self.does(stream)
        except asyncio.CancelledError:
            stream.is_cancelled = True
            raise


@asynccontextmanager
async def stream_backend(does: Does = in_turn) -> AsyncIterator[StreamBackend]:
    """Yield a backend that serves streams; at the end it is cut off."""
    backend = StreamBackend(does)
    server = backend.server = grpc.aio.server()
    server.add_generic_rpc_handlers((backend.handler(),))
    backend.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield backend
    finally:
        await server.stop(None)
