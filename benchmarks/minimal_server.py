"""The smallest grpc.aio server that parses a request, runs the model and serialises its answer."""

import asyncio
import sys
from typing import Any

import grpc
import numpy as np
import torch
import uvloop

from benchmarks.backend import LIMITS
from coalmine.inference import inference_pb2 as pb
from coalmine.inference.inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)


class Minimal(GRPCInferenceServiceServicer):
    """Checks nothing, batches nothing, runs the model on the loop."""

    def __init__(self, model: torch.jit.ScriptModule) -> None:
        self._model = model

    async def ModelInfer(self, request: Any, _context: Any) -> pb.ModelInferResponse:
        rows = np.frombuffer(request.raw_input_contents[0], np.float32)
        with torch.inference_mode():
            tensor = torch.from_numpy(rows.reshape(tuple(request.inputs[0].shape)).copy())
            logits = self._model(tensor).numpy()
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1")
        response.outputs.add(name="y", datatype="FP32", shape=logits.shape)
        response.raw_output_contents.append(logits.tobytes())
        return response


async def serve(file: str) -> None:
    torch.set_num_threads(1)
    model = torch.jit.freeze(torch.jit.load(file).eval())  # type: ignore[no-untyped-call]  # torch has no types here
    server = grpc.aio.server(options=LIMITS)
    add_GRPCInferenceServiceServicer_to_server(Minimal(model), server)  # type: ignore[abstract]  # one method of twelve
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()
