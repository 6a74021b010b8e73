"""Calls over the Open Inference Protocol: `Client` waits, `AsyncClient` is awaited.

Both build the same requests and read the same answers. Calls that fail raise grpc.RpcError as grpc
gives it: `error.code()` and `error.details()` say why. Arrays that the protocol can't carry, and
answers whose tensors don't fit their bytes, raise coalmine.errors.InvalidTensor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from coalmine.calling import open_aio_channel, open_channel, shown
from coalmine.inference import inference_pb2 as pb
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine.limits import MESSAGE_LIMITS
from coalmine.security import Tls
from coalmine.telemetry import REVISION_KEY, VARIANT_KEY
from coalmine.tensors import Tensor, datatype_of, decode_outputs, encode_inputs

Array = NDArray[Any]
Metadata = Sequence[tuple[str, str | bytes]]

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, and who answered it.

    `variant` and `revision` come from a router; from a server, "" and 0. `outputs` are read-only
    views of the message where the answer came raw; of BYTES, object arrays of `bytes`.
    """

    model_name: str
    model_version: str
    id: str
    outputs: Mapping[str, Array]
    variant: str
    revision: int
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


# ---------------------------------------------------------------- messages, both ways (pure)


def infer_request(
    model: str,
    inputs: Mapping[str, Array],
    *,
    version: str = "",
    outputs: Iterable[str] = (),
    id: str = "",  # noqa: A002 - the protocol's name
) -> pb.ModelInferRequest:
    """Return the request, its inputs raw and in the order of `inputs`. Raises InvalidTensor."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    encode_inputs(request, [_tensor(name, np.asarray(value)) for name, value in inputs.items()])
    for output in outputs:
        request.outputs.add(name=output)
    return request


def _tensor(name: str, array: Array) -> Tensor:
    return Tensor(name, datatype_of(array.dtype), array)


def read_answer(
    response: pb.ModelInferResponse, trailing: Iterable[tuple[str, str | bytes]]
) -> Answer:
    """Return the response with its outputs as arrays. Raises InvalidTensor."""
    metadata = tuple((key, value) for key, value in trailing)
    said = {key: value for key, value in metadata if isinstance(value, str)}
    revision = said.get(REVISION_KEY, "")
    return Answer(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        outputs={each.name: each.array for each in decode_outputs(response)},
        variant=said.get(VARIANT_KEY, ""),
        revision=int(revision) if revision.isdecimal() else 0,
        trailing_metadata=metadata,
    )


# ---------------------------------------------------------------- calls


class Client:
    """Calls that wait for their answer; may be shared by threads. Close it, or use it in a `with`.

    `timeout_s` and `metadata` apply to every call; None waits for ever. With `tls` the connection
    is encrypted, and the server proves who it is. `token` is shown with every call; to another
    machine only over TLS, or with `token_in_plaintext`. Raises StartError for wrong files.
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
    ) -> None:
        self._timeout_s = timeout_s
        own = shown(token, target, tls, in_plaintext=token_in_plaintext)
        self._metadata: Metadata = (*own, *metadata)
        self._channel = open_channel(target, tls, MESSAGE_LIMITS)
        self._stub = GRPCInferenceServiceStub(self._channel)

    def infer(
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
        """Return the model's answer; without `outputs`, all of them.

        `metadata` is sent beside the client's own. Raises grpc.RpcError, InvalidTensor.
        """
        request = infer_request(model, inputs, version=version, outputs=outputs, id=id)
        return self.send(request, timeout_s=timeout_s, metadata=metadata)

    def send(
        self,
        request: pb.ModelInferRequest,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> Answer:
        """Return the answer to a request as it is, as `infer` does."""
        response, call = self._stub.ModelInfer.with_call(
            request,
            timeout=self._timeout_s if timeout_s is None else timeout_s,
            metadata=(*self._metadata, *metadata),
        )
        return read_answer(response, call.trailing_metadata() or ())

    def server_live(self) -> bool:
        """Return whether the process is alive."""
        return self._stub.ServerLive(pb.ServerLiveRequest(), **self._call()).live

    def server_ready(self) -> bool:
        """Return whether the server takes requests."""
        return self._stub.ServerReady(pb.ServerReadyRequest(), **self._call()).ready

    def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether the model answers; False for one that the server doesn't know."""
        asked = pb.ModelReadyRequest(name=model, version=version)
        return self._stub.ModelReady(asked, **self._call()).ready

    def model_metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse:
        """Return the model's versions, inputs and outputs."""
        asked = pb.ModelMetadataRequest(name=model, version=version)
        return self._stub.ModelMetadata(asked, **self._call())

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return self._stub.ServerMetadata(pb.ServerMetadataRequest(), **self._call())

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self) -> dict[str, Any]:
        return {"timeout": self._timeout_s, "metadata": self._metadata}


class AsyncClient:
    """The calls of `Client`, awaited; belongs to the loop that it was made in."""

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
        own = shown(token, target, tls, in_plaintext=token_in_plaintext)
        self._metadata: Metadata = (*own, *metadata)
        self._channel = open_aio_channel(target, tls, MESSAGE_LIMITS)
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
        response = await call
        return read_answer(response, await call.trailing_metadata() or ())

    async def server_live(self) -> bool:
        """Return whether the process is alive."""
        return (await self._stub.ServerLive(pb.ServerLiveRequest(), **self._call())).live

    async def server_ready(self) -> bool:
        """Return whether the server takes requests."""
        return (await self._stub.ServerReady(pb.ServerReadyRequest(), **self._call())).ready

    async def model_ready(self, model: str, version: str = "") -> bool:
        """Return whether the model answers; False for one that the server doesn't know."""
        asked = pb.ModelReadyRequest(name=model, version=version)
        return (await self._stub.ModelReady(asked, **self._call())).ready

    async def model_metadata(self, model: str, version: str = "") -> pb.ModelMetadataResponse:
        """Return the model's versions, inputs and outputs."""
        asked = pb.ModelMetadataRequest(name=model, version=version)
        return await self._stub.ModelMetadata(asked, **self._call())

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return await self._stub.ServerMetadata(pb.ServerMetadataRequest(), **self._call())

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands now. Tells a refusal from a server that can't be reached."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _call(self) -> dict[str, Any]:
        return {"timeout": self._timeout_s, "metadata": self._metadata}
