"""Typed contents through tritonclient's stubs, which its client never sends. `ADDRESS`."""

import sys
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from tests.conformance.callers.asking import Output, say

# Of each datatype: the field that carries it, and two values as far apart as it reaches.
TYPED: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65_535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32_768, 32_767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, -0.25]),
    "FP64": ("fp64_contents", [0.1, -1e300]),
}


def scenario(stub: Any) -> Output:
    return {
        "numbers": numbers(stub),
        "words": words(stub),
        "out_of_range": failure(stub, numbers_request(UINT8=[0, 256])),
        "too_few": failure(stub, numbers_request(INT64=[1])),
        "half": failure(stub, half_request()),
        "mixed": failure(stub, mixed_request()),
    }


def numbers_request(**changed: list[Any]) -> Any:
    request = pb.ModelInferRequest(model_name="typed", id="t-1")
    for name, (field, values) in TYPED.items():
        given = request.inputs.add(name=f"x_{name.lower()}", datatype=name, shape=[1, 2])
        getattr(given.contents, field).extend(changed.get(name, values))
    return request


def numbers(stub: Any) -> Output:
    answer = stub.ModelInfer(numbers_request())
    outputs = {each.name: each for each in answer.outputs}
    return {
        "same": {
            name: list(getattr(outputs[f"y_{name.lower()}"].contents, field)) == values
            for name, (field, values) in TYPED.items()
        },
        "raw": len(answer.raw_output_contents),
        "id": answer.id,
    }


def words(stub: Any) -> list[str] | Output:
    request = pb.ModelInferRequest(model_name="words")
    given = request.inputs.add(name="words", datatype="BYTES", shape=[2, 1])
    given.contents.bytes_contents.extend([b"ab", "ü".encode()])
    try:
        (twice,) = stub.ModelInfer(request).outputs
    except grpc.RpcError as error:
        return {"status": str(error.code()), "message": error.details()}
    return [each.decode() for each in twice.contents.bytes_contents]


def half_request() -> Any:
    request = pb.ModelInferRequest(model_name="identity")
    given = request.inputs.add(name="x_fp16", datatype="FP16", shape=[1, 2])
    given.contents.fp32_contents.extend([0.5, 1.5])
    return request


def mixed_request() -> Any:
    request = pb.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(256)])
    given = request.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    given.contents.fp32_contents.extend([0.0] * 64)
    return request


def failure(stub: Any, request: Any) -> Output:
    try:
        answer = stub.ModelInfer(request)
    except grpc.RpcError as error:
        return {"status": str(error.code()), "message": error.details()}
    return {"status": None, "answer": str(answer)}


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        say(scenario(pb_grpc.GRPCInferenceServiceStub(channel)))
