"""tritonclient and coalmine register the same protobuf names; here they live in one process.

Were our stubs in protobuf's default pool, importing both would end with "duplicate symbol".
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.inference import inference_pb2 as ours
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine_client import Client
from tests.doubles.inference_server import FakeInference, serving

triton = pytest.importorskip("tritonclient.grpc")
theirs = pytest.importorskip("tritonclient.grpc.service_pb2")
utils = pytest.importorskip("tritonclient.utils")
theirs_grpc = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")

PIXELS = np.array([[1, 2], [3, 4]], np.float32)


class TheirServicer(theirs_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc, name-defined]
    """A server built on tritonclient's stubs."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        response = theirs.ModelInferResponse(model_name=request.model_name, id=request.id)
        for each in request.inputs:
            response.outputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        response.raw_output_contents.extend(request.raw_input_contents)
        return response


@contextmanager
def serving_theirs(servicer: TheirServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    theirs_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def infer_input(array: Any, datatype: str) -> Any:
    made = triton.InferInput("pixels", list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def test_tritonclients_client_is_answered_by_a_server_of_ours() -> None:
    with serving(FakeInference()) as address, triton.InferenceServerClient(address) as client:
        answer = client.infer("digits", [infer_input(PIXELS, "FP32")], request_id="r-1")

        assert answer.get_response().id == "r-1"
        np.testing.assert_array_equal(answer.as_numpy("sum"), [3, 7])
        assert client.is_server_live()
        assert client.is_model_ready("digits")
        assert not client.is_model_ready("unknown")
        assert client.get_model_metadata("digits").inputs[0].name == "pixels"


def test_our_client_is_answered_by_a_server_on_tritonclients_stubs() -> None:
    servicer = TheirServicer()
    with serving_theirs(servicer) as address, Client(address) as client:
        answer = client.infer("digits", {"pixels": PIXELS}, id="r-2")

    assert answer.id == "r-2"
    np.testing.assert_array_equal(answer.outputs["pixels"], PIXELS)
    assert type(servicer.requests[0]) is theirs.ModelInferRequest


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("BOOL", np.array([[True, False]])),
        ("INT8", np.array([[-128, 127]], np.int8)),
        ("UINT16", np.array([[0, 65_535]], np.uint16)),
        ("INT64", np.array([[-(2**63), 2**63 - 1]])),
        ("FP16", np.array([[0.5, 65_504]], np.float16)),
        ("FP64", np.array([[0.1, -1e300]])),
        ("BYTES", np.array([[b"a", b"\xff\0b"]], object)),
    ],
)
def test_tensors_cross_from_their_client_to_our_server_and_back(datatype: str, array: Any) -> None:
    server = FakeInference(lambda inputs: {"same": (datatype, inputs["pixels"])})
    with serving(server) as address, triton.InferenceServerClient(address) as client:
        answer = client.infer("digits", [infer_input(array, datatype)])

        np.testing.assert_array_equal(answer.as_numpy("same"), array)


def test_our_errors_reach_their_client_as_their_codes() -> None:
    server = FakeInference()
    server.errors = iter([(grpc.StatusCode.NOT_FOUND, "no model 'digits'")])
    with (
        serving(server) as address,
        triton.InferenceServerClient(address) as client,
        pytest.raises(utils.InferenceServerException) as caught,
    ):
        client.infer("digits", [infer_input(PIXELS, "FP32")])

    assert "NOT_FOUND" in caught.value.status()
    assert caught.value.message() == "no model 'digits'"


def test_messages_of_both_are_the_same_bytes() -> None:
    our_request = ours.ModelInferRequest(model_name="digits", raw_input_contents=[b"\0\0\0\0"])
    our_request.inputs.add(name="pixels", datatype="FP32", shape=[1, 1])
    our_request.parameters["priority"].uint64_param = 1

    their_request = theirs.ModelInferRequest.FromString(our_request.SerializeToString())

    assert their_request.inputs[0].shape == [1, 1]
    assert their_request.parameters["priority"].uint64_param == 1
    assert ours.ModelInferRequest.FromString(their_request.SerializeToString()) == our_request


def test_every_field_of_ours_has_the_number_and_type_that_it_has_there() -> None:
    only_ours = set()
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        if not hasattr(theirs, name):
            continue  # of ModelConfig, which is compared below
        their_fields = getattr(theirs, name).DESCRIPTOR.fields_by_name
        for field in message.fields:
            if field.name not in their_fields:
                only_ours.add(f"{name}.{field.name}")
                continue
            their_field = their_fields[field.name]
            assert (field.number, field.type) == (their_field.number, their_field.type), field.name

    assert only_ours == {"ModelMetadataResponse.properties"}  # the Open Inference Protocol's


def test_every_field_of_our_model_config_is_theirs() -> None:
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    for field in ours.ModelConfig.DESCRIPTOR.fields:
        their_field = config.ModelConfig.DESCRIPTOR.fields_by_name[field.name]
        assert (field.number, field.type) == (their_field.number, their_field.type), field.name


def test_the_two_packages_share_a_name_and_no_pool() -> None:
    assert ours.DESCRIPTOR.package == theirs.DESCRIPTOR.package == "inference"
    assert ours.DESCRIPTOR.pool is not theirs.DESCRIPTOR.pool
    assert GRPCInferenceServiceStub is not theirs_grpc.GRPCInferenceServiceStub
