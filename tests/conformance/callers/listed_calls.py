"""The runner of the list in Python. Reads calls, a line of JSON each; answers with a line each.

`python -m tests.conformance.callers.listed_calls ADDRESS`
"""

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.tensors import decode_outputs, to_raw, to_typed

Call = Mapping[str, Any]
Output = dict[str, Any]

# Those of the other languages' clients.
CONFIG = Path(__file__).parents[3] / "clients" / "go" / "service_config.json"
OPTIONS = (
    ("grpc.service_config", CONFIG.read_text()),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
)


# ---------------------------------------------------------------- requests


def request_of(call: Call) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(
        model_name=call["model"], model_version=call.get("version", ""), id=call.get("id", "")
    )
    for each in call["inputs"]:
        given = request.inputs.add(name=each["name"], datatype=each["datatype"])
        given.shape.extend(each["shape"])
        values = array_of(each["datatype"], each["values"])
        if each["typed"]:
            given.contents.CopyFrom(to_typed(values))
        else:
            request.raw_input_contents.append(to_raw(values))
    for name in call.get("outputs", ()):
        request.outputs.add(name=name)
    return request


def array_of(datatype: str, values: list[str]) -> Any:
    if datatype == "BYTES":
        return np.array([bytes.fromhex(each) for each in values], object)
    if datatype == "BOOL":
        return np.array([each == "true" for each in values])
    if datatype in {"FP32", "FP64"}:
        return np.array([float(each) for each in values], f"f{int(datatype[2:]) // 8}")
    if datatype in {"FP16", "BF16"}:
        return np.array([int(each) for each in values], np.uint16)
    return np.array([int(each) for each in values], datatype.lower())


# ---------------------------------------------------------------- answers


def answer_of(answer: pb.ModelInferResponse) -> Output:
    return {
        "id": answer.id,
        "model": answer.model_name,
        "version": answer.model_version,
        "outputs": [
            {
                "name": each.name,
                "datatype": each.datatype,
                "shape": list(each.array.shape),
                "values": spelt(each.datatype, each.array),
            }
            for each in decode_outputs(answer)
        ],
    }


def spelt(datatype: str, array: Any) -> list[str]:
    if datatype == "BYTES":
        return [bytes(each).hex() for each in array.ravel()]
    bits = array.view(np.uint16) if datatype in {"FP16", "BF16"} else array
    return [str(each).lower() for each in bits.ravel().tolist()]


def ended(call: Any) -> Output:
    """Return the status of a call, and what its trailing metadata says."""
    trailing = dict(call.trailing_metadata() or ())
    return {
        "status": call.code().name,
        "message": call.details() or "",
        "origin": trailing.get("x-coalmine-origin", "server"),
        "variant": trailing.get("x-coalmine-variant", ""),
    }


# ---------------------------------------------------------------- calls


def infer(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    future = begin(stub, call)
    if "cancel_ms" in call:
        threading.Timer(call["cancel_ms"] / 1000, future.cancel).start()
    try:
        return {**answer_of(future.result()), **ended(future)}
    except (grpc.RpcError, grpc.FutureCancelledError):
        return ended(future)


def begin(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Any:
    gzip = grpc.Compression.Gzip if call.get("gzip") else None
    return stub.ModelInfer.future(
        request_of(call),
        timeout=call["deadline_ms"] / 1000 if "deadline_ms" in call else None,
        metadata=tuple(call.get("metadata", {}).items()),
        compression=gzip,
    )


def stream(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    streamed = stub.ModelStreamInfer(map(request_of, call["requests"]), timeout=10)
    answers: list[Output] = []
    with contextlib.suppress(grpc.RpcError):  # its status says it
        answers.extend(
            {"error": each.error_message} if each.error_message else {"id": each.infer_response.id}
            for each in streamed
        )
    return {"answers": answers, **ended(streamed)}


def ready(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    return asked(stub.ModelReady, pb.ModelReadyRequest(name=call["model"]), ready_of)


def server_ready(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    return asked(stub.ServerReady, pb.ServerReadyRequest(), ready_of)


def server_metadata(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    return asked(stub.ServerMetadata, pb.ServerMetadataRequest(), lambda it: {"server": it.name})


def metadata(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    return asked(stub.ModelMetadata, pb.ModelMetadataRequest(name=call["model"]), metadata_of)


def asked(method: Any, request: Any, output_of: Callable[[Any], Output]) -> Output:
    try:
        answer, call = method.with_call(request)
    except grpc.RpcError as error:
        return ended(error)
    return {**output_of(answer), **ended(call)}


def ready_of(answer: Any) -> Output:
    return {"ready": answer.ready}


def metadata_of(answer: Any) -> Output:
    inputs, outputs = (
        [[each.name, each.datatype, list(each.shape)] for each in tensors]
        for tensors in (answer.inputs, answer.outputs)
    )
    return {"model": answer.name, "inputs": inputs, "outputs": outputs}


def load(stub: pb_grpc.GRPCInferenceServiceStub, call: Call) -> Output:
    """Call from several threads for a while; say so after the first answer."""
    over = time.monotonic() + call["seconds"]
    statuses: Counter[str] = Counter([infer(stub, call)["status"]])
    print(json.dumps({"loading": True}), flush=True)

    def keep_calling() -> None:
        while time.monotonic() < over:
            statuses[infer(stub, call)["status"]] += 1

    threads = [threading.Thread(target=keep_calling) for _ in range(call["callers"])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return {"statuses": statuses}


CALLS = {
    "infer": infer,
    "load": load,
    "metadata": metadata,
    "ready": ready,
    "server_metadata": server_metadata,
    "server_ready": server_ready,
    "stream": stream,
}


def main() -> None:
    with grpc.insecure_channel(sys.argv[1], options=OPTIONS) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        for line in sys.stdin:
            call = json.loads(line)
            print(json.dumps(CALLS[call["call"]](stub, call)), flush=True)


if __name__ == "__main__":
    main()
