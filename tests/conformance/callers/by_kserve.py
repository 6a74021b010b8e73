"""The core of the protocol through KServe's InferenceGRPCClient. `ADDRESS`."""

import asyncio
import json
import logging
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

Output = dict[str, Any]


async def scenario(client: InferenceGRPCClient) -> Output:
    return {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("digits"),
        "unknown_ready": await client.is_model_ready("nobody"),
        "raw": await answer(client, "digits", pixels(), version="1"),
        "typed": await answer(client, "digits", typed_pixels(), version="1"),
        "outputs": await answer(client, "sequences", tokens(), outputs=["length"]),
        "both": await answer(client, "sequences", tokens()),
        "words": await answer(client, "words", words()),
        "typed_words": await answer(client, "words", typed_words()),
        "half": await half(client),
        "unknown": await answer(client, "nobody", pixels()),
        "small": await answer(client, "digits", [tensor("pixels", np.zeros((1, 63), np.float32))]),
        "late": await answer(client, "slow", [tensor("pixels", slow_pixels())], seconds=0.05),
    }


def tensor(name: str, array: Any, datatype: str = "FP32") -> InferInput:
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def pixels() -> list[InferInput]:
    return [tensor("pixels", np.ones((2, 64), np.float32))]


def typed_pixels() -> list[InferInput]:
    return [InferInput("pixels", [2, 64], "FP32", data=[1.0] * 128)]


def tokens() -> list[InferInput]:
    return [tensor("tokens", np.array([[1, 2, 3]], np.int64), "INT64")]


def words() -> list[InferInput]:
    return [tensor("words", np.array([["ab"], ["ü"]], np.object_), "BYTES")]


def typed_words() -> list[InferInput]:
    return [InferInput("words", [2, 1], "BYTES", data=["ab", "ü"])]


def slow_pixels() -> Any:
    return np.full((1, 64), 4e5, np.float32)


async def half(client: InferenceGRPCClient) -> Output:
    """Return what comes back of FP16, beside all the other datatypes that `identity` takes."""
    types = {
        "bool": np.bool_,
        **{name: name for name in ("uint8", "uint16", "uint32", "uint64")},
        **{name: name for name in ("int8", "int16", "int32", "int64")},
        "fp16": np.float16,
        "fp32": np.float32,
        "fp64": np.float64,
    }
    given = [
        tensor(f"x_{name}", np.ones((1, 2), each), name.upper()) for name, each in types.items()
    ]
    brain = InferInput("x_bf16", [1, 2], "BF16")
    brain._raw_data = b"\x80\x3f\x80\x3f"  # its set_data_from_numpy knows no BF16
    return await answer(client, "identity", [*given, brain], outputs=["y_fp16", "y_bool"])


async def answer(
    client: InferenceGRPCClient,
    model: str,
    given: list[InferInput],
    *,
    version: str = "",
    outputs: list[str] | None = None,
    seconds: float = 30.0,
) -> Output:
    request = InferRequest(
        model,
        given,
        request_id="k-1",
        model_version=version,
        parameters={"tenant": "a"},
        request_outputs=[RequestedOutput(name) for name in outputs or []],
    )
    try:
        response = await client.infer(request, timeout=seconds, headers=(("x-tenant", "a"),))
    except grpc.RpcError as error:
        return {"status": error.code().name, "message": error.details()}
    return {
        "id": response.id,
        "model": [response.model_name, response.model_version],
        "outputs": {each.name: plain(each.as_numpy()) for each in response.outputs},
    }


def plain(array: Any) -> Any:
    """Return the array as JSON has it."""
    return json.loads(json.dumps(array.tolist(), default=lambda each: each.decode()))


async def main(address: str) -> None:
    logging.disable(logging.CRITICAL)  # it logs every error that it raises, on standard output
    async with InferenceGRPCClient(address) as client:
        print(json.dumps(await scenario(client)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
