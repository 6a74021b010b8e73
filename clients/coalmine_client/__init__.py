"""Calls to inference servers and routers, from Python and from the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coalmine.security import Tls
    from coalmine_client.client import Answer, AsyncClient, Client

__all__ = ["Answer", "AsyncClient", "Client", "Tls"]


def __getattr__(name: str) -> Any:
    """Return a name of the client; imported late, as the command line first sets gRPC up."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from coalmine_client import client  # noqa: PLC0415 - that is the point

    return getattr(client, name)
