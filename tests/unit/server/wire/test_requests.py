import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import InvalidRequest
from coalmine.inference import inference_pb2 as pb
from coalmine.listener.request_decoding import decoder_of
from coalmine.tensors import to_raw
from coalmine_server.wire.requests import (
    FIELDS_MAX,
    WALKED_BYTES,
    InferRequest,
    read_infer,
)

LARGE = WALKED_BYTES + 1000


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def message(*blobs: bytes, name: str = "m") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=blobs)
    for number, blob in enumerate(blobs):
        request.inputs.add(name=f"x{number}", datatype="UINT8", shape=[len(blob)])
    return request


def read(data: bytes) -> InferRequest:
    request = read_infer(data)
    assert isinstance(request, InferRequest), request
    return request


def is_walked(request: InferRequest) -> bool:
    """Return whether the raw contents were left where they are."""
    return bool(request.blobs) and isinstance(request.blobs[0], memoryview)


def test_a_small_request_is_read_by_protobuf() -> None:
    sent = message(b"one", b"two")
    request = read(sent.SerializeToString())
    assert request.message == sent
    assert [bytes(each) for each in request.blobs] == [b"one", b"two"]
    assert request.size == len(sent.SerializeToString())


def test_raw_contents_of_a_large_request_are_views_of_its_message() -> None:
    sent = message(b"a" * LARGE, b"", b"bc")
    data = sent.SerializeToString()
    request = read(data)
    assert [bytes(each) for each in request.blobs] == [b"a" * LARGE, b"", b"bc"]
    assert request.size == len(data)
    message_bytes = np.frombuffer(data, np.uint8)
    assert np.shares_memory(np.frombuffer(request.blobs[0], np.uint8), message_bytes)
    sent.ClearField("raw_input_contents")
    assert request.message == sent


def test_a_600_kb_request_is_read_without_a_copy_of_its_contents() -> None:
    pixels = np.zeros((1, 3, 224, 224), "f4")
    data = message(to_raw(pixels)).SerializeToString()
    tracemalloc.start()
    read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000


def test_a_scalar_that_comes_twice_is_read_as_the_last_one() -> None:
    data = message(b"a" * LARGE, name="stable").SerializeToString()
    request = read(data + field(1, b"canary") + field(2, b"7"))
    assert is_walked(request)
    assert (request.message.model_name, request.message.model_version) == ("canary", "7")


def test_contents_may_stand_between_other_fields_and_keep_their_order() -> None:
    one, two = message(b"1" * LARGE), message(b"2" * LARGE, b"3", name="n")
    request = read(one.SerializeToString() + two.SerializeToString())
    assert is_walked(request)
    assert [bytes(each[:1]) for each in request.blobs] == [b"1", b"2", b"3"]
    assert [each.name for each in request.message.inputs] == ["x0", "x0", "x1"]
    assert request.message.model_name == "n"


SAME_AS_PROTOBUF: dict[str, Callable[[bytes], bytes]] = {
    "an unknown field": lambda data: data + field(15, b"later"),
    "an unknown field with a long tag": lambda data: data + b"\xfa\x7f" + b"\x01x",
    "a number where contents are expected": lambda data: data + b"\x38\x05",
    "a fixed number": lambda data: data + b"\x3d" + bytes(4),
    "a group": lambda data: data + b"\x43\x44",
    "a padded tag": lambda data: data + b"\xba\x00\x01x",
    "a padded length": lambda data: data + b"\x3a\x81\x80\x00x",
    "a length of ten bytes": lambda data: data + b"\x3a" + b"\x80" * 9 + b"\x00",
    "a length beyond the end": lambda data: data + b"\x3a\x05x",
    "a length beyond any message": lambda data: data + b"\x3a\xff\xff\xff\xff\x0f",
    "a length that is cut off": lambda data: data + b"\x3a\x80",
    "a tag alone": lambda data: data + b"\x3a",
    "field 0": lambda data: data + b"\x02\x00",
    "an end without a beginning": lambda data: data + b"\x44",
    "a name that is no text": lambda data: data + field(1, b"\xff"),
    "an input that is no message": lambda data: data + field(5, b"\xff"),
    "cut off": lambda data: data[:-1],
    "very many fields": lambda data: data + field(7, b"") * FIELDS_MAX,
}


@pytest.mark.parametrize("change", SAME_AS_PROTOBUF.values(), ids=SAME_AS_PROTOBUF)
def test_whatever_comes_is_read_or_refused_just_as_by_protobuf(
    change: Callable[[bytes], bytes],
) -> None:
    agrees_with_protobuf(change(message(b"a" * LARGE, b"b").SerializeToString()))


def agrees_with_protobuf(data: bytes) -> None:
    request = read_infer(data)
    try:
        expected = pb.ModelInferRequest.FromString(data)
    except Exception:  # noqa: BLE001 - of protobuf, whatever it is
        assert isinstance(request, InvalidRequest)
        return
    assert isinstance(request, InferRequest)
    assert [bytes(each) for each in request.blobs] == list(expected.raw_input_contents)
    for each in (request.message, expected):
        each.ClearField("raw_input_contents")
    assert request.message == expected


@given(
    st.lists(
        st.one_of(
            st.builds(field, st.integers(0, 15), st.binary(max_size=20)),
            st.binary(max_size=6),
            st.just(field(7, b"z" * LARGE)),
        ),
        max_size=8,
    )
)
def test_any_bytes_are_read_just_as_by_protobuf(pieces: list[bytes]) -> None:
    agrees_with_protobuf(field(7, b"z" * LARGE) + b"".join(pieces))


def test_a_malformed_request_is_an_error_that_names_the_method() -> None:
    error = read_infer(b"\xff")
    assert isinstance(error, InvalidRequest)
    assert str(error) == "inference.GRPCInferenceService/ModelInfer: malformed message"


def test_other_methods_are_read_by_their_own_message() -> None:
    read_ready = decoder_of(pb.ModelReadyRequest.FromString, "s/ModelReady")
    sent = pb.ModelReadyRequest(name="m")
    assert read_ready(sent.SerializeToString()) == sent
    error = read_ready(b"\x0a")
    assert isinstance(error, InvalidRequest)
    assert str(error) == "s/ModelReady: malformed message"
