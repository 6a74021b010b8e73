"""Names of gRPC status codes, for modules that may not know grpc. Pure."""

from typing import Final

OK: Final = "OK"

# In the order of their numbers. Source: https://grpc.io/docs/guides/status-codes/.
_NAMES: Final = (
    OK,
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def code_name(number: int) -> str:
    """Return the name of a status code; a number that has none is UNKNOWN, as gRPC reads it."""
    return _NAMES[number] if 0 <= number < len(_NAMES) else "UNKNOWN"
