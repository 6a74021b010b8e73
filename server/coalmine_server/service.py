"""The Open Inference Protocol: decode, check, ask the registry, encode."""
# The names and arguments of the methods are the protocol's.
# ruff: noqa: ARG002

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any, Final

from coalmine.clock import Clock
from coalmine.errors import CoalmineError, NotFound, Overloaded
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.status import Context, answering
from coalmine.tensors import Tensor, encode_outputs
from coalmine_server.batcher import Pending
from coalmine_server.config import PLATFORM
from coalmine_server.registry import Registry, State, Version
from coalmine_server.runtime.execution import Arrays
from coalmine_server.signature import Checked, TensorSpec, check_request
from coalmine_server.spans import Exchange, Recorder

EXTENSIONS: Final = ("model_configuration", "model_repository(index)")
IN_FLIGHT_MAX: Final = 4096


@dataclass(slots=True)
class _Call:
    """What is known of one ModelInfer call so far."""

    begun_ns: int
    answered: Callable[[str], None]
    deadline_ns: int | None
    version: Version | None = None
    pending: Pending | None = None


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The six methods of the protocol's core."""

    def __init__(
        self,
        *,
        registry: Registry,
        clock: Clock,
        spans: Recorder,
        answered_unknown: Callable[[str], None],
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._spans = spans
        self._answered_unknown = answered_unknown
        self._in_flight_max = in_flight_max
        self.in_flight = 0

    # ------------------------------------------------------------ health and metadata

    @answering
    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> Any:
        """Return that the process lives."""
        return pb.ServerLiveResponse(live=True)

    @answering
    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> Any:
        """Return whether every model is READY."""
        return pb.ServerReadyResponse(ready=self._registry.is_ready)

    @answering
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> Any:
        """Return whether one model is READY; of one that nobody knows, false."""
        try:
            state = self._registry.find(request.name, request.version).state
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=state is State.READY)

    @answering
    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> Any:
        """Return the server's name, version and extensions."""
        return pb.ServerMetadataResponse(
            name="coalmine", version=version_of("coalmine"), extensions=EXTENSIONS
        )

    @answering
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> Any:
        """Return a model's versions, inputs and outputs, with their batch dimension."""
        version = self._registry.find(request.name, request.version)
        version.ready()
        numbers = [str(each.file.version) for each in self._registry.versions(request.name)]
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[request.version] if request.version else numbers,
            platform=PLATFORM,
            inputs=[_metadata(each) for each in version.signature.inputs],
            outputs=[_metadata(each) for each in version.signature.outputs],
        )

    # ------------------------------------------------------------ inference

    @answering
    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> Any:
        """Return the model's outputs: raw if and only if the request came raw."""
        call = self._begun(context)
        try:
            response = await self._infer(call, request)
        except BaseException as error:
            self._ended(call, request, context, *_told(error, call, self._clock))
            raise
        self._ended(call, request, context, "OK", "")
        return response

    async def _infer(self, call: _Call, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        version = self._registry.find(request.model_name, request.model_version)
        call.version, call.answered = version, version.metrics.answered
        if self.in_flight > self._in_flight_max:
            raise Overloaded(f"{self._in_flight_max} calls are in flight, the most there may be")
        batcher = version.ready()
        checked = check_request(version.signature, request)
        call.deadline_ns = _sooner(call.deadline_ns, call.begun_ns, checked.timeout_ns)
        call.pending = batcher.enter(checked, call.deadline_ns)
        outputs = await batcher.outcome(call.pending)
        return _response(version, request.id, checked, outputs)

    # ------------------------------------------------------------ what is learnt from a call

    def _begun(self, context: Context) -> _Call:
        self.in_flight += 1
        now_ns = self._clock.monotonic_ns()
        remaining_s = context.time_remaining()
        deadline_ns = None if remaining_s is None else now_ns + int(remaining_s * 1e9)
        return _Call(now_ns, self._answered_unknown, deadline_ns)

    def _ended(
        self,
        call: _Call,
        request: pb.ModelInferRequest,
        context: Context,
        code: str,
        message: str,
    ) -> None:
        self.in_flight -= 1
        call.answered(code)
        if self._spans.is_on:
            exchange = self._exchange(call, request, code, message)
            self._spans.record(exchange, context.invocation_metadata() or ())

    def _exchange(
        self, call: _Call, request: pb.ModelInferRequest, code: str, message: str
    ) -> Exchange:
        # Durations come from the monotonic clock; the wall clock may jump, so it is read once.
        ended_ns = self._clock.wall_ns()
        offset_ns = ended_ns - self._clock.monotonic_ns()
        exchange = Exchange(
            begun_ns=call.begun_ns + offset_ns,
            ended_ns=ended_ns,
            model=request.model_name,
            version=request.model_version,
            request_id=request.id,
            code=code,
            message=message,
        )
        if call.version is not None:
            exchange.version = str(call.version.file.version)
        if call.pending is not None:
            _add_times(exchange, call.pending, offset_ns)
        return exchange


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _sooner(deadline_ns: int | None, begun_ns: int, timeout_ns: int | None) -> int | None:
    """Return the deadline; the request's own time-out may only shorten it."""
    if timeout_ns is None:
        return deadline_ns
    own_ns = begun_ns + timeout_ns
    return own_ns if deadline_ns is None else min(deadline_ns, own_ns)


def _response(
    version: Version, request_id: str, checked: Checked, outputs: Arrays
) -> pb.ModelInferResponse:
    signature = version.signature
    response = pb.ModelInferResponse(
        model_name=signature.model, model_version=str(signature.version), id=request_id
    )
    specs = signature.outputs
    tensors = [Tensor(specs[i].name, specs[i].datatype, outputs[i]) for i in checked.outputs]
    encode_outputs(response, tensors, raw=checked.raw)
    return response


def _told(error: BaseException, call: _Call, clock: Clock) -> tuple[str, str]:
    """Return the code and text that the caller gets for `error`."""
    if isinstance(error, CoalmineError):
        return error.code, str(error)
    if isinstance(error, asyncio.CancelledError):
        # gRPC cancels a call whose deadline has passed just as it does one that was given up.
        late = call.deadline_ns is not None and clock.monotonic_ns() >= call.deadline_ns
        return ("DEADLINE_EXCEEDED", "the deadline passed") if late else ("CANCELLED", "")
    return "INTERNAL", type(error).__name__


def _add_times(exchange: Exchange, pending: Pending, offset_ns: int) -> None:
    exchange.batch_rows = pending.batch_rows
    exchange.queued_ns = pending.arrived_ns + offset_ns
    if pending.started_ns:
        exchange.started_ns = pending.started_ns + offset_ns
    if pending.ended_ns:
        exchange.computed_ns = pending.ended_ns + offset_ns
