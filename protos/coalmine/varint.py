"""Numbers as protobuf writes them before what has a length. Pure.

Source: https://protobuf.dev/programming-guides/encoding/.
"""


def varint(value: int) -> bytes:
    """Return `value`, 0 or more, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
