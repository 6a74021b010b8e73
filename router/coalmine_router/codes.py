"""Whose fault a status is, by the names of grpc.StatusCode. Pure."""

from typing import Final

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


def is_models_error(code: str) -> bool:
    """Return whether a call that ended so is charged to the variant that was called."""
    return code not in NOT_THE_MODELS
