"""A backend that speaks the Open Inference Protocol, in this process, and answers by script.

It works on raw bytes, so that tests see exactly what was sent, and may answer what no server would.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coalmine.inference import inference_pb2 as pb
from coalmine.limits import MESSAGE_BYTES_MAX
from coalmine.listener.health import Health
from coalmine.tensors import Array, Tensor, datatype_of, encode_inputs, encode_outputs
from tests.doubles.lifetime import Lifetime

SERVICE = "inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"
READY = f"{SERVICE}/ModelReady"

Metadata = Sequence[tuple[str, str | bytes]]

# Within that, whoever watches has heard that it doesn't serve any more.
_HEARD_S = 0.2
_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came; `method` is without the leading slash."""

    method: str
    body: bytes
    metadata: Metadata
    time_remaining_s: float | None

    @property
    def infer(self) -> pb.ModelInferRequest:
        return pb.ModelInferRequest.FromString(self.body)

    def values(self, key: str) -> list[str | bytes]:
        """Return what the metadata holds under `key`."""
        return [value for name, value in self.metadata if name == key]


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer; with `until`, not before that event; with `delay_s`, later still."""

    body: bytes = b""
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    initial: Metadata = ()
    trailing: Metadata = ()
    until: asyncio.Event | None = None
    delay_s: float = 0.0


Script = Callable[[Seen], Answer]


def request_body(
    model: str, /, *, version: str = "", request_id: str = "", **inputs: Array
) -> bytes:
    """Return a serialised ModelInferRequest with raw inputs."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    encode_inputs(request, _tensors(inputs))
    return request.SerializeToString()


def response_body(model: str = "digits", /, *, version: str = "1", **outputs: Array) -> bytes:
    """Return a serialised ModelInferResponse with raw outputs."""
    response = pb.ModelInferResponse(model_name=model, model_version=version)
    encode_outputs(response, _tensors(outputs), raw=True)
    return response.SerializeToString()


def answering(**outputs: Array) -> Script:
    """Return a script that answers every ModelInfer with these outputs."""
    response = pb.ModelInferResponse()
    encode_outputs(response, _tensors(outputs), raw=True)
    body = response.SerializeToString()
    return lambda seen: Answer(body) if seen.method == INFER else echo(seen)


class Gate:
    """A script that answers nobody until `open`, and then everybody with this body."""

    def __init__(self, body: bytes = b"") -> None:
        self._opened = asyncio.Event()
        self._answer = Answer(body, until=self._opened)

    def __call__(self, _seen: Seen) -> Answer:
        return self._answer

    def open(self) -> None:
        self._opened.set()


def failing(code: grpc.StatusCode, message: str = "") -> Script:
    """Return a script that fails every call."""
    return lambda _: Answer(code=code, message=message)


def hanging() -> Script:
    """Return a script that never answers."""
    return lambda _: Answer(until=asyncio.Event())


def echo(seen: Seen) -> Answer:
    """Answer ModelInfer with its inputs as outputs, ModelReady with yes, anything else not."""
    if seen.method == READY:
        return Answer(pb.ModelReadyResponse(ready=True).SerializeToString())
    if seen.method != INFER:
        return Answer(code=grpc.StatusCode.UNIMPLEMENTED, message=f"no script for {seen.method}")
    request = seen.infer
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    for each in request.inputs:
        response.outputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
    response.raw_output_contents.extend(request.raw_input_contents)
    return Answer(response.SerializeToString())


class OipBackend(Lifetime):
    """`async with OipBackend(script) as backend:` serves on `backend.address`.

    `script` may be replaced at any time. `seen` holds the requests in the order they came;
    `cancelled` counts those whose caller went before the answer. Questions of its health come to
    neither: it answers them by `says`, or not at all.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        address: str = "127.0.0.1:0",
        health: bool = False,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.cancelled = 0
        self.address = address
        self._health = Health() if health else None
        self._options = list(dict([*_OPTIONS, *options]).items())
        self._server: grpc.aio.Server | None = None
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        """Serve; after a stop, on the same port again."""
        server = grpc.aio.server(options=self._options)
        if self._health is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers((_Handlers(self._answer),))
        port = server.add_insecure_port(self.address)
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Stop at once: calls in flight are cut off, later ones refused."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def drain(self, grace_s: float) -> None:
        """Stop as servers do: take no more calls, and answer those in flight."""
        if self._health is not None:
            await self.says(serving=False)
            await asyncio.sleep(_HEARD_S)
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def says(self, *, serving: bool, of: str = "") -> None:
        """Say of its health, or of one of its services, whether it serves."""
        assert self._health is not None, "it offers no health service"
        status = health_pb2.HealthCheckResponse
        await self._health.set(of, status.SERVING if serving else status.NOT_SERVING)

    async def wait_seen(self, count: int, timeout_s: float = 10.0) -> None:
        """Return when `count` requests have come in all."""
        await self._wait(lambda: len(self.seen) >= count, timeout_s)

    async def wait_cancelled(self, count: int, timeout_s: float = 10.0) -> None:
        """Return when the callers of `count` requests have gone before their answer."""
        await self._wait(lambda: self.cancelled >= count, timeout_s)

    async def _wait(self, reached: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(reached)

    async def _told(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, method: str, body: bytes, context: Any) -> bytes:
        metadata = tuple((key, value) for key, value in context.invocation_metadata())
        seen = Seen(method, body, metadata, context.time_remaining())
        self.seen.append(seen)
        await self._told()
        try:
            return await _given(self.script(seen), context)
        except asyncio.CancelledError:
            self.cancelled += 1
            # The task is cancelled, but whoever waits must still be told.
            await self._told()
            raise


async def _given(answer: Answer, context: Any) -> bytes:
    if answer.until is not None:
        await answer.until.wait()
    if answer.delay_s:
        await asyncio.sleep(answer.delay_s)
    if answer.initial:
        await context.send_initial_metadata(tuple(answer.initial))
    context.set_trailing_metadata(tuple(answer.trailing))
    if answer.code is not grpc.StatusCode.OK:
        await context.abort(answer.code, answer.message, tuple(answer.trailing))
    return answer.body


@dataclass(frozen=True, slots=True)
class _Handlers(grpc.GenericRpcHandler):
    answer: Callable[[str, bytes, Any], Awaitable[bytes]]

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        method = details.method.removeprefix("/")
        if method.startswith("grpc.health."):
            return None

        async def handle(body: bytes, context: Any) -> bytes:
            return await self.answer(method, body, context)

        return grpc.unary_unary_rpc_method_handler(handle)


def _tensors(arrays: dict[str, Array]) -> list[Tensor]:
    return [Tensor(name, datatype_of(array.dtype), array) for name, array in arrays.items()]
