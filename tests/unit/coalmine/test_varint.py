from google.protobuf.wrappers_pb2 import UInt64Value
from hypothesis import example, given
from hypothesis import strategies as st

from coalmine.varint import varint


@given(st.integers(1, 2**64 - 1))
@example(0x7F)
@example(0x80)
def test_a_number_is_written_as_protobuf_writes_it(value: int) -> None:
    assert b"\x08" + varint(value) == UInt64Value(value=value).SerializeToString()


def test_nothing_is_one_byte() -> None:
    assert varint(0) == b"\0"
