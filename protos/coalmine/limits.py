"""The bounds of messages and metadata on every hop that carries tensors."""

from typing import Final

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024


def message_limits(bytes_max: int) -> tuple[tuple[str, int], ...]:
    """Return the options of a gRPC channel or server that takes and sends up to `bytes_max`."""
    return (
        ("grpc.max_receive_message_length", bytes_max),
        ("grpc.max_send_message_length", bytes_max),
    )


MESSAGE_LIMITS: Final = message_limits(MESSAGE_BYTES_MAX)


def bytes_while_sent(message: bytes) -> int:
    """Return the memory of a message until its reader has it: gRPC keeps a copy and the original.

    That lasts as long as the peer doesn't read.
    """
    return 2 * len(message)


# Of metadata, what every gRPC peer takes that was told nothing else; from there to its hard limit
# of 16 KiB it refuses some calls and takes others, by chance.
METADATA_BYTES_DEFAULT: Final = 8 * 1024


def metadata_limits(bytes_max: int) -> tuple[tuple[str, int], ...]:
    """Return the options of a gRPC channel or server that takes metadata up to `bytes_max`.

    As HTTP/2 counts: each pair's key and value, and 32 bytes.
    """
    return (
        ("grpc.max_metadata_size", bytes_max),
        ("grpc.absolute_max_metadata_size", bytes_max),
    )


# A caller may ping each 5 s, with a call in flight or without. A ping that comes a little early is
# no attack: a timer, or a network that catches up, moves two pings closer together.
_PINGS_APART_MS: Final = 4_000
PING_LIMITS: Final = (
    ("grpc.http2.min_ping_interval_without_data_ms", _PINGS_APART_MS),
    ("grpc.keepalive_permit_without_calls", 1),
)

# Whoever opens streams and resets each at once leaves work behind. So many streams may be open on
# a connection: a caller's calls over that wait in its own gRPC.
STREAMS_MAX: Final = 1_000
# Calls that gRPC has taken and no handler has: it cancels those over its bound, with a code that
# says nothing. Its own, 1,000, would come before our bound on what is in flight.
_PENDING_MAX: Final = 4_096
FLOOD_LIMITS: Final = (
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    # Else streams that have ended count until they are cleaned up after, and gRPC refuses calls of
    # callers who keep to the bound.
    ("grpc.http.overload_protection", 0),
    ("grpc.server.max_pending_requests", _PENDING_MAX),
    ("grpc.server.max_pending_requests_hard_limit", _PENDING_MAX),
)
