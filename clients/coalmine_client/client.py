"""Calls over the Open Inference Protocol: `Client` waits, `AsyncClient` is awaited.

Both build the same requests and read the same answers. Calls that fail raise a CallError, which is
a grpc.RpcError too: `error.code()`, `error.details()` and `error.origin` say why and whose it is.
Arrays that the protocol or the model can't take, and answers whose tensors don't fit their bytes,
raise coalmine.errors.InvalidTensor.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self

import grpc
import grpc.aio

from coalmine.access.target import Target
from coalmine.access.tls_files import Tls
from coalmine.inference import inference_pb2 as pb
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine.limits import MESSAGE_LIMITS
from coalmine_client.answer_stream import AnswerStream
from coalmine_client.call_error import CallError, InvalidArgument, Unavailable, call_error
from coalmine_client.exact_values import as_array, as_datatype
from coalmine_client.inference_messages import (
    Answer,
    Array,
    Metadata,
    infer_request,
    join_answers,
    read_answer,
    split_inputs,
)
from coalmine_client.known_models import Key, KnownModels
from coalmine_client.retries import Retries, RetryBudget

__all__ = [
    "TIMEOUT_S",
    "Answer",
    "Array",
    "AsyncClient",
    "Client",
    "Metadata",
    "infer_request",
    "read_answer",
]

TIMEOUT_S: Final = 30.0
IN_FLIGHT: Final = 16
RETRIES: Final = Retries()


class Client:
    """Calls that wait for their answer. Threads may share a client. Close it, or use a `with`.

    `timeout_s` and `metadata` apply to every call; None waits for ever. With `tls` the connection
    is encrypted, and the server proves who it is. Every call shows `token`; to another machine
    only over TLS, or with `token_in_plaintext`. With `retries`, the client makes calls again that
    fail with UNAVAILABLE; None: never. Raises StartError for wrong files.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = TIMEOUT_S,
        metadata: Metadata = (),
        tls: Tls | None = None,
        token: str | None = None,
        token_in_plaintext: bool = False,
        retries: Retries | None = RETRIES,
    ) -> None:
        self._timeout_s = timeout_s
        to = Target(target, tls, token, token_in_plaintext)
        self._metadata: Metadata = (*to.token_metadata(), *metadata)
        self._channel = to.open_channel(MESSAGE_LIMITS)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._budget = None if retries is None else RetryBudget(retries)
        self._known = KnownModels(self._ask_model_metadata, self._ask_rows_max)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Iterable[str] = (),
        id: str = "",  # noqa: A002 - the protocol's name
        timeout_s: float | None = None,
        metadata: Metadata = (),
        split: bool | int = False,
    ) -> Answer:
        """Return the model's answer; without `outputs`, all of them.

        Inputs are arrays, lists or numbers. They become the datatype that the model's metadata
        names, if that changes no value. `metadata` is sent beside the client's own. `split` sends
        a batch in parts of that many rows, or with True of the model's limit. `timeout_s` is for
        all parts together. Raises CallError, InvalidTensor.
        """
        ends_s = self._ends_s(timeout_s)
        key = model, version
        arrays = self._arrays(key, inputs, ends_s)
        rows_max = self._known.get_rows_max(key, ends_s) if split is True else int(split)
        parts = split_inputs(arrays, rows_max) if rows_max > 0 and arrays else [arrays]
        wanted = tuple(outputs)
        answers: list[Answer] = []
        for part in parts:
            request = infer_request(model, part, version=version, outputs=wanted, id=id)
            answers.append(self._send_request(request, ends_s, metadata))
        return join_answers(answers, [len(next(iter(each.values()), ())) for each in parts])

    def send(
        self,
        request: pb.ModelInferRequest,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Answer:
        """Return the answer to a request as it is, as `infer` does."""
        return self._send_request(request, self._ends_s(timeout_s), metadata)

    def stream(
        self,
        model: str,
        batches: Iterable[Mapping[str, Any]],
        *,
        version: str = "",
        outputs: Iterable[str] = (),
        in_flight: int = IN_FLIGHT,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Iterator[Answer]:
        """Yield the answer to each of `batches`, in order, over one stream.

        At most `in_flight` requests wait for their answer; `batches` is read no further ahead.
        `timeout_s` is for the whole stream; None: it lasts as long as it takes. A request that
        fails ends the stream. There are no retries. Raises CallError, InvalidTensor.
        """
        if in_flight < 1:
            raise ValueError(f"in_flight: expected at least 1, got {in_flight}")
        wanted = tuple(outputs)
        key = model, version
        requests = (
            infer_request(
                model, self._arrays(key, each, self._ends_s(None)), version=version, outputs=wanted
            )
            for each in batches
        )

        def start_stream(fed: Iterator[pb.ModelInferRequest]) -> Any:
            sent = (*self._metadata, *metadata)
            return self._stub.ModelStreamInfer(fed, timeout=timeout_s, metadata=sent)

        return AnswerStream(requests, in_flight).answers(start_stream)

    def server_live(self) -> bool:
        """Return whether the process is alive."""
        return bool(self._call_default(self._stub.ServerLive, pb.ServerLiveRequest()).live)

    def server_ready(self) -> bool:
        """Return whether the server takes requests."""
        return bool(self._call_default(self._stub.ServerReady, pb.ServerReadyRequest()).ready)

    def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether the model answers; False for one that the server doesn't know."""
        request = pb.ModelReadyRequest(name=model, version=version)
        return bool(self._call_default(self._stub.ModelReady, request).ready)

    def model_metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse:
        """Return the model's versions, inputs and outputs."""
        return self._ask_model_metadata((model, version), self._ends_s(None))

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        found: pb.ServerMetadataResponse
        found = self._call_default(self._stub.ServerMetadata, pb.ServerMetadataRequest())
        return found

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _arrays(
        self, key: Key, inputs: Mapping[str, Any], ends_s: float | None
    ) -> dict[str, Array]:
        datatypes = self._known.get_datatypes(key, ends_s)
        return {
            name: as_datatype(name, value, datatypes[name])
            if name in datatypes
            else as_array(name, value)
            for name, value in inputs.items()
        }

    def _ask_model_metadata(self, key: Key, ends_s: float | None) -> pb.ModelMetadataResponse:
        request = pb.ModelMetadataRequest(name=key[0], version=key[1])
        found: pb.ModelMetadataResponse
        found, _ = self._call(self._stub.ModelMetadata, request, ends_s, ())
        return found

    def _ask_rows_max(self, key: Key, ends_s: float | None) -> int:
        request = pb.ModelConfigRequest(name=key[0], version=key[1])
        found, _ = self._call(self._stub.ModelConfig, request, ends_s, ())
        return int(found.config.max_batch_size)

    # ------------------------------------------------------------ one call, and again

    def _send_request(
        self, request: pb.ModelInferRequest, ends_s: float | None, metadata: Metadata
    ) -> Answer:
        try:
            response, call = self._call(self._stub.ModelInfer, request, ends_s, metadata)
        except InvalidArgument:  # perhaps the model became another
            self._known.forget((request.model_name, request.model_version))
            raise
        return read_answer(response, call.trailing_metadata() or ())

    def _call_default(self, method: Any, request: Any) -> Any:
        return self._call(method, request, self._ends_s(None), ())[0]

    def _call(self, method: Any, request: Any, ends_s: float | None, metadata: Metadata) -> Any:
        """Return response and call, with the tries that `retries` allow. Raises CallError."""
        if self._budget is not None:
            self._budget.add_call()
        attempt = 1
        while True:
            left_s = _left_s(ends_s)
            try:
                return method.with_call(
                    request, timeout=left_s, metadata=(*self._metadata, *metadata)
                )
            except grpc.RpcError as error:
                failure = call_error(error)
            wait_s = self._take_wait_s(failure, attempt, _left_s(ends_s))
            if wait_s is None:
                raise failure
            time.sleep(wait_s)
            attempt += 1

    def _take_wait_s(self, failure: CallError, attempt: int, left_s: float | None) -> float | None:
        if self._budget is None or not isinstance(failure, Unavailable):
            return None
        return self._budget.take_wait_s(attempt, left_s)

    def _ends_s(self, timeout_s: float | None) -> float | None:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return None if timeout_s is None else time.monotonic() + timeout_s


def _left_s(ends_s: float | None) -> float | None:
    return None if ends_s is None else max(0.0, ends_s - time.monotonic())


class AsyncClient:
    """The calls of `Client`, awaited. It belongs to the loop that it was made in."""

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = TIMEOUT_S,
        metadata: Metadata = (),
        tls: Tls | None = None,
        token: str | None = None,
        token_in_plaintext: bool = False,
    ) -> None:
        self._timeout_s = timeout_s
        to = Target(target, tls, token, token_in_plaintext)
        self._metadata: Metadata = (*to.token_metadata(), *metadata)
        self._channel = to.open_aio_channel(MESSAGE_LIMITS)
        self._stub = GRPCInferenceServiceStub(self._channel)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str = "",
        outputs: Iterable[str] = (),
        id: str = "",  # noqa: A002 - the protocol's name
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Answer:
        """Return the model's answer, as `Client.infer` does."""
        request = infer_request(model, inputs, version=version, outputs=outputs, id=id)
        return await self.send(request, timeout_s=timeout_s, metadata=metadata)

    async def send(
        self,
        request: pb.ModelInferRequest,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Answer:
        """Return the answer to a request as it is, as `infer` does."""
        call = self._stub.ModelInfer(
            request,
            timeout=self._timeout_s if timeout_s is None else timeout_s,
            metadata=(*self._metadata, *metadata),
        )
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise call_error(error) from None
        return read_answer(response, await call.trailing_metadata() or ())

    async def server_live(self) -> bool:
        """Return whether the process is alive."""
        return (await self._stub.ServerLive(pb.ServerLiveRequest(), **self._call_options())).live

    async def server_ready(self) -> bool:
        """Return whether the server takes requests."""
        return (await self._stub.ServerReady(pb.ServerReadyRequest(), **self._call_options())).ready

    async def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether the model answers; False for one that the server doesn't know."""
        asked = pb.ModelReadyRequest(name=model, version=version)
        return (await self._stub.ModelReady(asked, **self._call_options())).ready

    async def model_metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse:
        """Return the model's versions, inputs and outputs."""
        asked = pb.ModelMetadataRequest(name=model, version=version)
        return await self._stub.ModelMetadata(asked, **self._call_options())

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return await self._stub.ServerMetadata(pb.ServerMetadataRequest(), **self._call_options())

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now. So a refusal differs from an unreachable server."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _call_options(self) -> dict[str, Any]:
        return {"timeout": self._timeout_s, "metadata": self._metadata}
