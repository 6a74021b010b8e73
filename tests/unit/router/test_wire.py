"""What is read from raw bytes: always what protobuf itself reads, and never an accident."""

import math
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given
from hypothesis import strategies as st

from coalmine.errors import InvalidRequest
from coalmine.inference import inference_pb2 as pb
from coalmine_router.wire import FIELDS_MAX, model_name, override_bytes, parameter, request_id

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


# Few names, so that the same one comes more than once.
NAMES = st.sampled_from(["", "user", "a", "ü"])


def choices() -> st.SearchStrategy[bytes]:
    """An InferParameter, of which more than one part may be chosen, or none."""
    one = st.one_of(
        st.builds(lambda v: pb.InferParameter(bool_param=v), st.booleans()),
        st.builds(lambda v: pb.InferParameter(int64_param=v), st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda v: pb.InferParameter(uint64_param=v), st.integers(0, 2**64 - 1)),
        st.builds(lambda v: pb.InferParameter(double_param=v), st.floats()),
        st.builds(lambda v: pb.InferParameter(string_param=v), TEXT),
    ).map(lambda made: made.SerializeToString())
    return st.lists(st.one_of(one, one, unknown_fields()), max_size=2).map(b"".join)


def entries() -> st.SearchStrategy[bytes]:
    """An entry of `parameters`, whose key and value may come twice, or not at all."""
    keys = NAMES.map(lambda name: tag(1, LENGTH) + prefixed(name.encode()))
    values = choices().map(lambda value: tag(2, LENGTH) + prefixed(value))
    inside = st.lists(st.one_of(keys, values, values), max_size=3)
    return inside.map(lambda fields: tag(4, LENGTH) + prefixed(b"".join(fields)))


WITH_PARAMETERS = st.lists(st.one_of(entries(), entries(), parts()), max_size=8).map(b"".join)


def is_disputed(request: pb.ModelInferRequest) -> bool:
    """Of an entry with a field it should not have, Python's parser drops all, C++'s the field."""
    unknown = UnknownFieldSet(request)
    return any(unknown[at].field_number == 4 for at in range(len(unknown)))


def text_of(request: pb.ModelInferRequest, name: str) -> str | None:
    """Return a parameter as protobuf reads it."""
    given = request.parameters[name]  # an unknown one is as one that has no choice
    chosen = given.WhichOneof("parameter_choice")
    if chosen is None:
        return None
    value = getattr(given, chosen)
    match value:
        case bool():
            return str(value).lower()
        case float():
            return repr(value)
    return str(value) or None


# Concatenated messages are one message, in which scalar fields come more than once.
MESSAGES = st.lists(parts(), max_size=8).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.one_of(MESSAGES, WITH_PARAMETERS)) or b"\x0a\x01a")
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


@given(MESSAGES)
def test_the_id_is_the_one_that_protobuf_reads(data: bytes) -> None:
    assert request_id(data) == (pb.ModelInferRequest.FromString(data).id or None)


@given(WITH_PARAMETERS, NAMES)
def test_a_parameter_is_the_one_that_protobuf_reads(data: bytes, name: str) -> None:
    assert parameter(data, name) == text_of(pb.ModelInferRequest.FromString(data), name)


@given(st.one_of(damaged(), st.binary(max_size=200)), NAMES)
@example(b"\xff" * 20, "user")
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "user")
def test_of_any_other_bytes_what_is_read_is_protobufs_or_the_request_is_invalid(
    data: bytes, name: str
) -> None:
    try:
        read = (model_name(data), request_id(data), parameter(data, name))
    except InvalidRequest:
        return
    try:
        request = pb.ModelInferRequest.FromString(data)
    except DecodeError:  # damaged where only a server looks: it will say so
        return
    assert read[:2] == (request.model_name, request.id or None)
    if not is_disputed(request):
        assert read[2] == text_of(request, name)


def with_parameter(given: pb.InferParameter) -> bytes:
    parameters = {"other": pb.InferParameter(string_param="bob"), "user": given}
    return pb.ModelInferRequest(model_name="digits", parameters=parameters).SerializeToString()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (pb.InferParameter(string_param="ann"), "ann"),
        (pb.InferParameter(string_param=""), None),
        (pb.InferParameter(int64_param=0), "0"),
        (pb.InferParameter(int64_param=-(2**63)), "-9223372036854775808"),
        (pb.InferParameter(uint64_param=2**64 - 1), "18446744073709551615"),
        (pb.InferParameter(bool_param=True), "true"),
        (pb.InferParameter(bool_param=False), "false"),
        (pb.InferParameter(double_param=0.1), "0.1"),
        (pb.InferParameter(double_param=-math.inf), "-inf"),
        (pb.InferParameter(), None),
    ],
)
def test_a_parameter_is_read_as_text(given: pb.InferParameter, text: str | None) -> None:
    assert parameter(with_parameter(given), "user") == text


def test_a_parameter_of_another_name_is_not_read() -> None:
    assert parameter(with_parameter(pb.InferParameter(string_param="ann")), "use") is None
    assert parameter(b"", "user") is None


def test_a_field_that_an_entry_should_not_have_is_skipped() -> None:
    inside = tag(1, LENGTH) + prefixed(b"user") + tag(9, VARINT) + b"\x00"
    value = pb.InferParameter(string_param="ann").SerializeToString()
    entry = inside + tag(2, LENGTH) + prefixed(value)
    assert parameter(tag(4, LENGTH) + prefixed(entry), "user") == "ann"


def test_an_entry_of_very_many_fields_is_refused() -> None:
    padding = tag(9, VARINT) + b"\x00"
    inside = tag(1, LENGTH) + prefixed(b"user") + padding * 8
    with pytest.raises(InvalidRequest, match="more than 8 fields"):
        parameter(tag(4, LENGTH) + prefixed(inside), "user")


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


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x22", "a number is cut off"),
        (b"\x22\x02\x0a\x05", "a field is cut off"),
        # The value reaches beyond its entry, though not beyond the request.
        (b"\x22\x06\x0a\x04user\x12\x02\x10", "a field is cut off"),
        (b"\x22\x08\x0a\x04user\x12\x05\x1a\x03ann", "a field is cut off"),
        (b"\x22\x0c\x0a\x04user\x12\x04\x1a\x02\xff\xfe", "not UTF-8"),
        (b"\x22\x01\x0b", "wire type 3"),
    ],
)
def test_a_malformed_parameter_is_invalid_and_it_is_said_why(data: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parameter(data, "user")


def test_an_id_that_is_no_text_is_invalid() -> None:
    with pytest.raises(InvalidRequest, match="the request's id is not UTF-8"):
        request_id(b"\x1a\x02\xff\xfe")


def test_the_empty_request_has_no_name() -> None:
    assert model_name(b"") == ""


def test_a_request_may_have_ten_thousand_fields_and_not_one_more() -> None:
    named = b"\x0a\x01a"
    field = b"\x3a\x00"

    assert model_name(named + field * (FIELDS_MAX - 1)) == "a"
    readers: list[Callable[[bytes], str | None]] = [
        model_name,
        request_id,
        lambda data: parameter(data, "user"),
    ]
    for reader in readers:
        with pytest.raises(InvalidRequest, match="more than 10000 fields"):
            reader(named + field * FIELDS_MAX)


# ---------------------------------------------------------------- setting


@given(MESSAGES, TEXT, TEXT)
def test_an_override_wins_over_what_was_sent_and_keeps_all_else(
    data: bytes, model: str, version: str
) -> None:
    before = pb.ModelInferRequest.FromString(data)
    after = pb.ModelInferRequest.FromString(data + override_bytes(model, version))

    assert after.model_name == (model or before.model_name)
    assert after.model_version == (version or before.model_version)
    after.model_name, after.model_version = before.model_name, before.model_version
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(
        deterministic=True
    )


def test_a_name_longer_than_a_one_byte_length_is_set_whole() -> None:
    for size in (127, 128, 16_383, 16_384):
        assert model_name(override_bytes("x" * size, "")) == "x" * size


def test_an_empty_override_adds_no_byte() -> None:
    assert override_bytes("", "") == b""
