"""The model's name from raw bytes: always what protobuf itself reads, and never an accident."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from coalmine.errors import InvalidRequest
from coalmine.inference import inference_pb2 as pb
from coalmine_router.wire import FIELDS_MAX, model_name, override

# ---------------------------------------------------------------- messages, well-formed and not

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
VARINT, FIXED64, LENGTH, GROUP, FIXED32 = 0, 1, 2, 3, 5


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def prefixed(data: bytes) -> bytes:
    return varint(len(data)) + data


def unknown_fields() -> st.SearchStrategy[bytes]:
    numbers = st.integers(8, 2**29 - 1)
    return st.one_of(
        st.builds(lambda n, v: tag(n, VARINT) + varint(v), numbers, st.integers(0, 2**64 - 1)),
        st.builds(lambda n, v: tag(n, FIXED64) + v, numbers, st.binary(min_size=8, max_size=8)),
        st.builds(lambda n, v: tag(n, FIXED32) + v, numbers, st.binary(min_size=4, max_size=4)),
        st.builds(lambda n, v: tag(n, LENGTH) + prefixed(v), numbers, st.binary(max_size=300)),
        # The number is known, the wire type is another's: unknown as well.
        st.builds(lambda v: tag(1, VARINT) + varint(v), st.integers(0, 2**64 - 1)),
    )


def tensors() -> st.SearchStrategy[pb.ModelInferRequest]:
    return st.builds(
        lambda name, shape, blob: pb.ModelInferRequest(
            inputs=[
                pb.ModelInferRequest.InferInputTensor(name=name, datatype="UINT8", shape=shape)
            ],
            raw_input_contents=[blob],
            parameters={name: pb.InferParameter(string_param=name)},
        ),
        TEXT,
        st.lists(st.integers(-1, 2**40), max_size=4),
        st.binary(max_size=300),
    )


def parts() -> st.SearchStrategy[bytes]:
    scalars = st.builds(
        lambda name, version, id: pb.ModelInferRequest(  # noqa: A006 - the field's name
            model_name=name, model_version=version, id=id
        ),
        TEXT,
        TEXT,
        TEXT,
    )
    whole = st.one_of(scalars, tensors()).map(lambda part: part.SerializeToString())
    named = TEXT.map(lambda name: tag(1, LENGTH) + prefixed(name.encode()))
    return st.one_of(whole, named, unknown_fields())


# Concatenated messages are one message, in which scalar fields come more than once.
MESSAGES = st.lists(parts(), max_size=8).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(MESSAGES) or b"\x0a\x01a")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["cut", "flip", "insert", "delete"])):
            case "cut":
                del data[at:]
            case "flip" if data:
                data[at] = draw(st.integers(0, 255))
            case "insert":
                data.insert(at, draw(st.sampled_from([0x00, 0x0A, 0x80, 0xFF])))
            case "delete" if data:
                del data[at]
    return bytes(data)


# ---------------------------------------------------------------- reading


@given(MESSAGES)
def test_the_name_is_the_one_that_protobuf_reads(data: bytes) -> None:
    assert model_name(data) == pb.ModelInferRequest.FromString(data).model_name


@given(st.one_of(damaged(), st.binary(max_size=200)))
@example(b"\xff" * 20)
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def test_of_any_other_bytes_the_name_is_protobufs_or_the_request_is_invalid(data: bytes) -> None:
    try:
        name = model_name(data)
    except InvalidRequest:
        return
    try:
        read = pb.ModelInferRequest.FromString(data)
    except DecodeError:  # damaged where only a server looks: it will say so
        return
    assert name == read.model_name


@pytest.mark.parametrize(
    "core", [pb.ModelReadyRequest(name="digits"), pb.ModelMetadataRequest(name="digits")]
)
def test_the_core_requests_have_their_name_in_the_same_place(
    core: pb.ModelReadyRequest | pb.ModelMetadataRequest,
) -> None:
    assert model_name(core.SerializeToString()) == "digits"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a", "a number is cut off"),
        (b"\x0a\x05abcd", "a field is cut off"),
        (b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "longer than ten bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a", "a field is cut off"),
        (b"\x41\x00\x00\x00\x00\x00\x00\x00", "a field is cut off"),
        (b"\x45\x00\x00\x00", "a field is cut off"),
        (b"\x02\x00", "a field is cut off"),
        (b"\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\x43\x44", "wire type 3"),
        (b"\x46", "wire type 6"),
    ],
)
def test_malformed_bytes_are_invalid_and_it_is_said_why(data: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        model_name(data)


def test_the_empty_request_has_no_name() -> None:
    assert model_name(b"") == ""


def test_a_request_may_have_ten_thousand_fields_and_not_one_more() -> None:
    named = b"\x0a\x01a"
    field = b"\x3a\x00"

    assert model_name(named + field * (FIELDS_MAX - 1)) == "a"
    with pytest.raises(InvalidRequest, match="more than 10000 fields"):
        model_name(named + field * FIELDS_MAX)


# ---------------------------------------------------------------- setting


@given(MESSAGES, TEXT, TEXT)
def test_an_override_wins_over_what_was_sent_and_keeps_all_else(
    data: bytes, model: str, version: str
) -> None:
    before = pb.ModelInferRequest.FromString(data)
    after = pb.ModelInferRequest.FromString(data + override(model, version))

    assert after.model_name == (model or before.model_name)
    assert after.model_version == (version or before.model_version)
    after.model_name, after.model_version = before.model_name, before.model_version
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(
        deterministic=True
    )


def test_a_name_longer_than_a_one_byte_length_is_set_whole() -> None:
    for size in (127, 128, 16_383, 16_384):
        assert model_name(override("x" * size, "")) == "x" * size


def test_an_empty_override_adds_no_byte() -> None:
    assert override("", "") == b""
