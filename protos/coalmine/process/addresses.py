"""Addresses to listen on: their form, and an early check that one is free."""

import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from coalmine.errors import StartError, reason_of
from coalmine.units import is_whole

Bound = TypeVar("Bound")

# Of an address that this machine doesn't have.
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`. Raises StartError for anything else."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not is_whole(port) or int(port) > 65_535:
        raise StartError(f"'{address}' is not an address: expected host:port")
    return host, int(port)


def check_target(target: str) -> None:
    """Raise StartError where a gRPC target's port is a number that no port has, or oddly written.

    gRPC would call another port instead: 9002 for 74538.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return
    for each in target.split(","):
        _, colon, port = each.rpartition(":")
        if colon and port.isdigit() and "]" not in port:
            split_address(each.rpartition("/")[2])


def check_free(address: str) -> None:
    """Raise StartError where `address` can't be listened on.

    This includes a port that its process shares (SO_REUSEPORT): a second server there would
    silently take half of its callers.
    """
    reserve(address, shared=False).close()


def reserve(address: str, *, shared: bool) -> socket.socket:
    """Return a socket bound to `address`, not listening; `shared` lets others bind it as well.

    With port 0 the system's choice stays taken while the socket is open. Raises StartError.
    """
    place = split_address(address)
    try:
        return bind_in_a_family(place[0], lambda family: _bind_socket(family, place, shared=shared))
    except OSError as error:
        raise listen_error(address, error) from None


def bind_in_a_family(host: str, bind: Callable[[int], Bound]) -> Bound:
    """Return what `bind` makes of the first family in which this machine has the host's address.

    IPv4 comes first. Raises OSError, as `bind` does.
    """
    found = {family for family, *_ in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    *others, last = sorted(found)
    for family in others:
        try:
            return bind(family)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return bind(last)


def _bind_socket(family: int, place: tuple[str, int], *, shared: bool) -> socket.socket:
    """Return a socket that is bound to a place. Raises OSError."""
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        if shared:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # A port held with SO_REUSEADDR as well passes for free until somebody listens there.
            with contextlib.suppress(OSError):
                held.bind(place)
                return held
        # What connections of a server before us have left behind is no reason not to start.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(place)
    except OSError:
        held.close()
        raise
    return held


def loopback_address() -> str:
    """Return an address that this machine alone reaches: [::1] where there is no 127.0.0.1."""
    for address in ("127.0.0.1:0", "[::1]:0"):
        with contextlib.suppress(StartError):
            check_free(address)
            return address
    raise StartError("there is neither 127.0.0.1 nor [::1] on this machine")


def bound_address(held: socket.socket) -> str:
    """Return `host:port` of a bound socket."""
    host, port = held.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_error(address: str, error: OSError) -> StartError:
    """Return the one line that says why `address` can't be listened on."""
    return StartError(f"cannot listen on {address}: {reason_of(error)}")
