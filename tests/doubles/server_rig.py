"""The inference server in this process, on ports of its own."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.limits import MESSAGE_BYTES_MAX
from coalmine.process.lifecycle import Stop
from coalmine.tensors import Array, Tensor, datatype_of, decode_outputs, encode_inputs
from coalmine_server.app import Process
from coalmine_server.config import ServerConfig

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", 2 * MESSAGE_BYTES_MAX),
    # Sub-channels are shared by target: a port that is used again must not find an old one.
    ("grpc.use_local_subchannel_pool", 1),
)


def infer_request(model: str, arrays: Mapping[str, Array], **fields: Any) -> pb.ModelInferRequest:
    """Return a raw request."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    encode_inputs(
        request, [Tensor(name, datatype_of(each.dtype), each) for name, each in arrays.items()]
    )
    return request


def pixels(rows: int = 1, value: float = 1.0) -> dict[str, Array]:
    return {"pixels": np.full((rows, 64), value, dtype="f4")}


@dataclass
class ServerRig:
    address: str
    http: str
    channel: grpc.aio.Channel
    stub: "pb_grpc.GRPCInferenceServiceAsyncStub"  # only the stubs of the generated code have it
    stop: Stop
    admin: str = ""  # its address, where loading has a listener of its own

    async def metrics(self) -> str:
        """Return what /metrics says."""

        def read() -> str:
            with urllib.request.urlopen(f"http://{self.http}/metrics") as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(read)

    async def infer(
        self, model: str, arrays: Mapping[str, Array], *, timeout_s: float = 30, **fields: Any
    ) -> dict[str, Array]:
        """Return the outputs of one call."""
        request = infer_request(model, arrays, **fields)
        response = await self.stub.ModelInfer(request, timeout=timeout_s)
        return {each.name: each.array for each in decode_outputs(response)}


@asynccontextmanager
async def serving(
    repository: Path, *, grace_s: float = 10, traces: Path | None = None, **more: Any
) -> AsyncIterator[ServerRig]:
    """Serve until the block ends; all the way down before it is left. `more` is configuration."""
    stop = Stop()
    ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    process = Process(
        ServerConfig(repository, "127.0.0.1:0", "127.0.0.1:0", grace_s, traces, **more),
        lambda **addresses: ready.set_result(addresses),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(process.serve(stop))
        addresses = await ready
        async with grpc.aio.insecure_channel(addresses["grpc"], options=OPTIONS) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            try:
                admin = addresses.get("admin", "")
                yield ServerRig(addresses["grpc"], addresses["http"], channel, stub, stop, admin)
            finally:
                stop.ask("test over")
