"""Calls to inference servers and routers, from Python and from the command line."""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from coalmine.access.tls_files import Tls
    from coalmine.errors import InvalidTensor
    from coalmine_client.call_error import (
        Aborted,
        CallError,
        Cancelled,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
    from coalmine_client.client import AsyncClient, Client
    from coalmine_client.inference_messages import Answer
    from coalmine_client.retries import Retries

__all__ = [
    "Aborted",
    "Answer",
    "AsyncClient",
    "CallError",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "InvalidTensor",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Retries",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]

# Where each is, but for the errors of calls.
_MODULES: Final = {
    "Answer": "coalmine_client.inference_messages",
    "AsyncClient": "coalmine_client.client",
    "Client": "coalmine_client.client",
    "InvalidTensor": "coalmine.errors",
    "Retries": "coalmine_client.retries",
    "Tls": "coalmine.access.tls_files",
}


def __getattr__(name: str) -> Any:
    """Return a name of the client; imported late, as the command line first sets gRPC up."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = importlib.import_module(_MODULES.get(name, "coalmine_client.call_error"))
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
