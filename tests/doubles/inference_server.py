"""An inference server of two threads, beside the caller's own loop; remembers what it was asked."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import grpc
import numpy as np

from coalmine.inference import inference_pb2 as pb
from coalmine.inference.inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from coalmine.limits import MESSAGE_BYTES_MAX
from coalmine.tensors import Tensor, decode_inputs, encode_outputs

Outputs = Mapping[str, tuple[str, Any]]  # name: (datatype, array)


def sums(arrays: Mapping[str, Any]) -> Outputs:
    """Answer with each row's sum."""
    return {"sum": ("FP32", arrays["pixels"].sum(axis=1, dtype=np.float32))}


class FakeInference(GRPCInferenceServiceServicer):
    """Answers ModelInfer with `model(inputs)`; every `canary_every`th answer is the canary's."""

    def __init__(self, model: Callable[[Mapping[str, Any]], Outputs] = sums) -> None:
        self.model = model
        self.requests: list[pb.ModelInferRequest] = []
        self.metadata: list[tuple[tuple[str, str | bytes], ...]] = []
        self.canary_every = 0
        self.errors: Iterator[tuple[grpc.StatusCode, str] | None] = iter(())
        self.datatypes = {"pixels": "FP32"}
        self.rows_max = 0
        self.asked_metadata = 0
        self.is_from_router = False
        self._calls = count(1)

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        self.requests.append(request)
        self.metadata.append(tuple((key, value) for key, value in context.invocation_metadata()))
        context.set_trailing_metadata(self._origin())
        if error := next(self.errors, None):
            context.abort(*error)
        response = pb.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version or "1", id=request.id
        )
        inputs = {each.name: each.array for each in decode_inputs(request)}
        outputs = self.model(inputs)
        wanted = [each.name for each in request.outputs] or list(outputs)
        tensors = [Tensor(name, *outputs[name]) for name in wanted]
        encode_outputs(response, tensors, raw=True)
        return response

    def _origin(self) -> tuple[tuple[str, str], ...]:
        if self.is_from_router:
            return (("x-coalmine-origin", "router"),)
        if not self.canary_every:
            return ()
        is_canary = next(self._calls) % self.canary_every == 0
        variant = "canary" if is_canary else "stable"
        return ("x-coalmine-variant", variant), ("x-coalmine-revision", "8")

    def ModelMetadata(self, request: Any, context: Any) -> pb.ModelMetadataResponse:
        self.asked_metadata += 1
        if request.name != "digits":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model '{request.name}'")
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name="digits",
            versions=["1"],
            inputs=[tensor(name=name, datatype=each) for name, each in self.datatypes.items()],
        )

    def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=request.name == "digits" and request.version != "9")

    def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=False)

    def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="fake", version="0", extensions=["none"])

    def ModelStreamInfer(self, request_iterator: Any, context: Any) -> Any:
        for request in request_iterator:
            self.requests.append(request)
            if request.model_name != "digits":
                yield pb.ModelStreamInferResponse(error_message=f"no '{request.model_name}'")
                continue
            response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            outputs = self.model({each.name: each.array for each in decode_inputs(request)})
            tensors = [Tensor(name, *each) for name, each in outputs.items()]
            encode_outputs(response, tensors, raw=True)
            yield pb.ModelStreamInferResponse(infer_response=response)

    def ModelConfig(self, request: Any, context: Any) -> pb.ModelConfigResponse:
        config = pb.ModelConfig(name=request.name, max_batch_size=self.rows_max)
        return pb.ModelConfigResponse(config=config)

    def ModelStatistics(self, request: Any, context: Any) -> Any: ...
    def RepositoryIndex(self, request: Any, context: Any) -> Any: ...
    def RepositoryModelLoad(self, request: Any, context: Any) -> Any: ...
    def RepositoryModelUnload(self, request: Any, context: Any) -> Any: ...


@contextmanager
def serving(servicer: GRPCInferenceServiceServicer, at: str = "127.0.0.1:0") -> Iterator[str]:
    """Yield the address where `servicer` answers."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]
    server = grpc.server(ThreadPoolExecutor(2), options=options)
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(at)
    server.start()
    try:
        yield f"{at.rpartition(':')[0]}:{port}"
    finally:
        server.stop(None).wait()
