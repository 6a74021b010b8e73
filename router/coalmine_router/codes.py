"""Status codes by the names of grpc.StatusCode, for modules that may not know grpc. Pure."""

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

# A model that is asked the same refuses the same: what was asked is wrong, not who answers.
REFUSALS: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
    }
)

# Counted apart: the caller's mistakes, and what a server that is well turns away.
NOT_THE_MODELS: Final = frozenset(
    {
        "OK",
        "CANCELLED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
    }
)

# What a backend answers where a request is wrong, or its caller may not ask for that, or not now.
_REFUSED: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "RESOURCE_EXHAUSTED",
    }
)


def code_name(number: int) -> str:
    """Return the name of a status code; a number that has none is UNKNOWN, as gRPC reads it."""
    return _NAMES[number] if 0 <= number < len(_NAMES) else "UNKNOWN"


def is_refusal(code: str) -> bool:
    """Return whether a call that ended so was refused. Callers' mistakes fall on both sides."""
    return code in _REFUSED


def is_charged_to_model(code: str) -> bool:
    """Return whether a call that ended so is charged to the variant that was called."""
    return code not in NOT_THE_MODELS
