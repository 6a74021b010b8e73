"""ModelStreamInfer: many requests over one call, answered in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import grpc

from coalmine.errors import InvalidRequest, Unavailable
from coalmine.inference import inference_pb2 as pb
from coalmine.limits import bytes_while_sent
from coalmine.status import Context, status_and_text
from coalmine.varint import varint
from coalmine_server.calls import CallContext
from coalmine_server.grpc_front.grpc_context import GrpcCallContext
from coalmine_server.wire.requests import InferRequest

# So many requests of one stream run at once. Then no more are read, and gRPC makes the caller wait.
IN_FLIGHT_MAX: Final = 64

# So many bytes of answers may wait for a slow caller.
UNSENT_BYTES_MAX: Final = 64 * 1024 * 1024

# Triton's mark on the last response to a request. Our models give one response to each, so every
# response is the last, whether or not the request asked for an empty one behind it.
FINAL: Final = "triton_final_response"

# A response is written as bytes, for an answer comes as bytes: the field that it goes into, and the
# mark, which a reader merges with whatever parameters the answer has.
_INFER_RESPONSE: Final = bytes([pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | 2])
_MARK: Final = pb.ModelInferResponse(
    parameters={FINAL: pb.InferParameter(bool_param=True)}
).SerializeToString()

# A message that can't be read comes as the error that it is.
Requests = AsyncIterator[InferRequest | InvalidRequest]
# What comes back is a serialised ModelInferResponse.
Answer = Callable[[InferRequest, CallContext], Awaitable[bytes]]

# Counts bytes more, or fewer, that wait in the process.
TrackBytes = Callable[[int], None]


class StreamCalls:
    """The open streams. Their requests are answered as those of ModelInfer are."""

    def __init__(
        self,
        answer: Answer,
        track_bytes: TrackBytes,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
    ) -> None:
        self._answer = answer
        self._track_bytes = track_bytes
        self._in_flight_max = in_flight_max
        self._unsent_bytes_max = unsent_bytes_max
        self._open: set[_ServedStream] = set()  # bounded by how many calls gRPC lets in
        self._is_draining = False

    async def serve(self, requests: Requests, context: Context) -> None:
        """Answer until the caller has no more. Raises Unavailable where draining cut it short."""
        if self._is_draining:
            raise _draining_error()
        stream = _ServedStream(
            self._answer,
            self._track_bytes,
            requests,
            context,
            in_flight_max=self._in_flight_max,
            unsent_bytes_max=self._unsent_bytes_max,
        )
        self._open.add(stream)
        try:
            await stream.run()
        finally:
            stream.uncount_unsent()
            self._open.discard(stream)

    def drain(self) -> None:
        """Read no more requests; those that were read are answered before the streams end."""
        self._is_draining = True
        for each in self._open:
            each.stop_reading()


class _ServedStream:
    """One stream: it reads requests while earlier ones run, and writes answers in their order."""

    def __init__(
        self,
        answer: Answer,
        track_bytes: TrackBytes,
        requests: Requests,
        context: Context,
        *,
        in_flight_max: int,
        unsent_bytes_max: int,
    ) -> None:
        self._answer = answer
        self._track_bytes = track_bytes
        self._unsent_bytes_max = unsent_bytes_max
        self._unsent_bytes = 0
        self._sent = asyncio.Event()
        self._is_gone = False
        self._requests = requests
        self._context = context
        self._call_context = GrpcCallContext(context)
        self._free = asyncio.Semaphore(in_flight_max)
        # As many as are in flight, and the end; None: no request comes any more.
        self._running: asyncio.Queue[asyncio.Task[bytes] | None]
        self._running = asyncio.Queue(in_flight_max + 1)
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answer every request that is read."""
        async with asyncio.TaskGroup() as group:
            self._reading = group.create_task(self._read_requests(group))
            self._reading.add_done_callback(lambda _: self._running.put_nowait(None))
            try:
                await self._write_answers()
            except grpc.aio.InternalError:  # the caller is gone
                self._is_gone = True
                self._cancel_running()
        if self._is_gone:
            raise asyncio.CancelledError  # as gRPC itself does: there is no status to send either
        if self._reading.cancelled():
            raise _draining_error()

    def stop_reading(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    def uncount_unsent(self) -> None:
        """Count no more answers for a caller who is gone."""
        self._track_unsent(-self._unsent_bytes)

    def _cancel_running(self) -> None:
        self.stop_reading()
        while not self._running.empty():
            response = self._running.get_nowait()
            if response is not None:
                response.cancel()

    async def _read_requests(self, group: asyncio.TaskGroup) -> None:
        await self._wait_for_room()
        async for request in self._requests:
            self._running.put_nowait(group.create_task(self._respond_and_count(request)))
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Wait until another request may be read; gRPC makes the caller wait as long."""
        await self._free.acquire()
        while self._unsent_bytes > self._unsent_bytes_max:
            self._sent.clear()
            await self._sent.wait()

    async def _write_answers(self) -> None:
        while (response := await self._running.get()) is not None:
            answer = await response
            self._track_unsent(len(answer))  # gRPC's copy
            await self._context.write(answer)
            self._track_unsent(-bytes_while_sent(answer))
            self._free.release()
            self._sent.set()

    def _track_unsent(self, size: int) -> None:
        self._unsent_bytes += size
        self._track_bytes(size)

    async def _respond_and_count(self, request: InferRequest | InvalidRequest) -> bytes:
        response = await self._respond(request)
        self._track_unsent(len(response))
        return response

    async def _respond(self, request: InferRequest | InvalidRequest) -> bytes:
        if isinstance(request, InvalidRequest):  # bytes that are no message; the next may be one
            return _error_bytes(pb.ModelInferRequest(), str(request))
        try:
            return _final_response(await self._answer(request, self._call_context))
        except Exception as error:  # noqa: BLE001 - one request's failure is not the stream's
            return _error_bytes(request.message, status_and_text(error, self._context)[1])


def _draining_error() -> Unavailable:
    return Unavailable("the server is draining: a stream takes no more requests")


def _final_response(answer: bytes) -> bytes:
    """Return the ModelStreamInferResponse with `answer` in it, whose bytes are copied once."""
    return b"".join((_INFER_RESPONSE, varint(len(answer) + len(_MARK)), answer, _MARK))


def _error_bytes(request: pb.ModelInferRequest, message: str) -> bytes:
    """Return an error response, with the id of the request that failed."""
    response = pb.ModelStreamInferResponse(error_message=message)
    response.infer_response.id = request.id
    response.infer_response.model_name = request.model_name
    response.infer_response.model_version = request.model_version
    response.infer_response.parameters[FINAL].bool_param = True
    return response.SerializeToString()
