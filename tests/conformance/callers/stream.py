"""One stream of tritonclient's sync client, and how it ends. `ADDRESS`."""

import sys
from queue import Queue
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb

from tests.conformance.callers.asking import Output, error_of, logits, pixels, say, tensor

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
Given = Queue[tuple[Any, Any]]


def scenario(address: str) -> Output:
    with triton.InferenceServerClient(address) as client:
        return {
            "in_order": in_order(client),
            "errors": errors(client),
            "final": final(client),
            "compressed": in_order(client, compression_algorithm="gzip"),
            "cancelled": cancelled(client),
            "out_of_time": out_of_time(client),
            "after": in_order(client),
            "malformed": malformed(address),
        }


def opened(client: triton.InferenceServerClient, **named: Any) -> Given:
    given: Given = Queue()
    client.start_stream(lambda result, error: given.put((result, error)), **named)
    return given


def ended(client: triton.InferenceServerClient, given: Given) -> list[tuple[Any, Any]]:
    """Wait for what is in flight; return all that the callback was given."""
    client.stop_stream()
    return [given.get_nowait() for _ in range(given.qsize())]


def in_order(client: triton.InferenceServerClient, **named: Any) -> list[Any]:
    """Return ids and first values: a slow request, and quick ones to another model behind it."""
    given = opened(client, **named)
    client.async_stream_infer("slow", pixels(value=1e5), request_id="slow")
    for each in range(100):
        client.async_stream_infer("raises", pixels(value=float(each)), request_id=f"r-{each}")
    return [[result.get_response().id, logits(result)[0][0]] for result, _ in ended(client, given)]


def errors(client: triton.InferenceServerClient) -> list[Any]:
    """Return what a stream gives for good and bad requests in turn."""
    given = opened(client)
    small = tensor("pixels", np.zeros((1, 63), np.float32), "FP32")
    client.async_stream_infer("digits", pixels(), request_id="good")
    client.async_stream_infer("digits", [small], request_id="small")
    client.async_stream_infer("nobody", pixels(), request_id="nobody")
    client.async_stream_infer("raises", pixels(value=-1.0), request_id="raises")
    client.async_stream_infer("digits", pixels(), model_version="1", request_id="good again")
    return [
        error_of(error) if error else result.get_response().id
        for result, error in ended(client, given)
    ]


def final(client: triton.InferenceServerClient) -> list[Any]:
    """Return the parameters of the responses to a request that asks for an empty last one."""
    given = opened(client)
    client.async_stream_infer("digits", pixels(), enable_empty_final_response=True)
    client.async_stream_infer("digits", pixels())
    responses = [result.get_response(as_json=True) for result, _ in ended(client, given)]
    return [[len(each["outputs"]), each["parameters"]] for each in responses]


def cancelled(client: triton.InferenceServerClient) -> list[Any]:
    given = opened(client)
    client.async_stream_infer("slow", pixels(value=3e5))
    client.stop_stream(cancel_requests=True)
    return [error_of(error) if error else "answered" for _, error in ended(client, given)]


def out_of_time(client: triton.InferenceServerClient) -> list[Any]:
    given = opened(client, stream_timeout=0.1)
    client.async_stream_infer("slow", pixels(value=3e5))
    output = [error_of(given.get(timeout=30)[1])]
    while output[-1]["status"] is None:  # of the request in the queue, just before the stream's end
        output.append(error_of(given.get(timeout=30)[1]))
    client.stop_stream()
    return output


def malformed(address: str) -> list[Any]:
    """Return what a stream gives for bytes that are no message, between two that are."""
    request = pb.ModelInferRequest(model_name="digits", id="good", raw_input_contents=[bytes(256)])
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    good = request.SerializeToString()
    output: list[Any] = []
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(METHOD)
        try:
            for each in call(iter([good, b"\xff\xff\xff", good]), timeout=30):
                response = pb.ModelStreamInferResponse.FromString(each)
                output.append(response.error_message or response.infer_response.id)
        except grpc.RpcError as error:
            output.append(str(error.code()))
    return output


if __name__ == "__main__":
    say(scenario(sys.argv[1]))
