"""Every error that coalmine answers with: one base class, the gRPC code on each class.

A message says what was expected, what came, and for which model or route. `status.py` is the one
place that turns these into a status. Codes are names of grpc.StatusCode, so that pure modules may
raise them without importing grpc.
"""

from typing import ClassVar, Literal

Code = Literal[
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "UNIMPLEMENTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "INTERNAL",
]


class CoalmineError(Exception):
    """Base of all errors with a status of their own; its text is what the caller reads."""

    code: ClassVar[Code]


# ---------------------------------------------------------------- requests


class InvalidRequest(CoalmineError):
    """The request is wrong and would be wrong again."""

    code = "INVALID_ARGUMENT"


class InvalidTensor(InvalidRequest):
    """A tensor's name, datatype, shape and bytes don't fit together, whatever the model."""


class NotFound(CoalmineError):
    """No such model, version, route, variant or record."""

    code = "NOT_FOUND"


class NotOffered(CoalmineError):
    """The method exists in the protocol, but not here."""

    code = "UNIMPLEMENTED"


class Unavailable(CoalmineError):
    """It exists but can't answer now: loading, unloading, failed, draining or out of reach."""

    code = "UNAVAILABLE"


class Overloaded(CoalmineError):
    """A queue is full, or too much is in flight. Shedding must not look like a broken backend."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineSpent(CoalmineError):
    """The caller's time ran out while the request waited; the model did not run."""

    code = "DEADLINE_EXCEEDED"


class ModelFailed(CoalmineError):
    """The model's forward raised, or its outputs aren't as declared."""

    code = "INTERNAL"


# ---------------------------------------------------------------- callers


class Unauthenticated(CoalmineError):
    """The call shows no token, or one that isn't known, or no longer is."""

    code = "UNAUTHENTICATED"


class PermissionDenied(CoalmineError):
    """The caller is known, and its role may not do this."""

    code = "PERMISSION_DENIED"


# ---------------------------------------------------------------- changes


class StaleRevision(CoalmineError):
    """Somebody else changed the table since the caller looked."""

    code = "ABORTED"


class NotReady(CoalmineError):
    """A variant can't take the share it was to be given."""

    code = "FAILED_PRECONDITION"


class LoadFailed(CoalmineError):
    """A model can't be served as its folder says. The server goes on as before."""

    code = "FAILED_PRECONDITION"


class PartlyDone(CoalmineError):
    """Some workers of a server have made a change and others have not. A retry is safe."""

    code = "ABORTED"


# ---------------------------------------------------------------- starting


class StartError(Exception):
    """A process can't start: a wrong file, a bad model, a port in use. One line, exit code 2."""


def reason_of(error: OSError) -> str:
    """Return what the system says of an error, as the end of a line."""
    return (error.strerror or str(error)).lower()
