"""The kinds of names in router.yaml, and the form of each."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from coalmine.errors import StartError
from coalmine.inference import SERVICE
from coalmine.process.addresses import split_address
from coalmine.trace_context import TRACEPARENT
from coalmine_router.metadata import OWN, is_passed_on

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=128)]


def _checked_service_name(name: str) -> str:
    if name == SERVICE or name.startswith(("grpc.health.", "grpc.reflection.")):
        raise ValueError(f"'{name}' is answered by the router itself, never by a route")
    return name


# In gRPC's form: package.Service.
ServiceName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.]+$", max_length=256),
    AfterValidator(_checked_service_name),
]
MethodName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$", max_length=128)]

# gRPC's schemes for addresses, with and without DNS.
_SCHEMES: Final = ("dns:", "ipv4:", "ipv6:", "unix:")
_TARGET_CHARS_MAX: Final = 256


def _checked_metadata_key(key: str) -> str:
    if not is_passed_on(key):
        raise ValueError(f"'{key}' is gRPC's own: it says nothing of the caller")
    if key == TRACEPARENT or key.startswith(OWN):
        raise ValueError(f"'{key}' is the router's to read: it says nothing of the caller")
    if key.endswith("-bin"):
        raise ValueError(f"'{key}' holds bytes: expected a key that holds text")
    return key


MetadataKey = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9._-]+$", max_length=128),
    AfterValidator(_checked_metadata_key),
]


def _checked_target(target: str) -> str:
    """Return a gRPC target: host:port, dns:///host:port, dns://server/host:port, or a path.

    Raises ValueError for anything else.
    """
    problem = f"expected host:port, dns:///host:port or unix:PATH, got {target!r:.100}"
    if len(target) > _TARGET_CHARS_MAX or not target.isascii() or not target.isprintable():
        raise ValueError(problem)
    if not (_has_path(target) if target.startswith("unix:") else _has_host_and_port(target)):
        raise ValueError(problem)
    return target


def _has_path(target: str) -> bool:
    return target.removeprefix("unix:").lstrip("/") != ""


def _has_host_and_port(target: str) -> bool:
    address = target
    for scheme in _SCHEMES:
        if target.startswith(scheme):
            address = target.rpartition("/")[2] if "/" in target else target.removeprefix(scheme)
    try:
        host, port = split_address(address)
    except StartError:
        return False
    return bool(host) and port != 0 and not {" ", "/"} & set(host)


Target = Annotated[str, AfterValidator(_checked_target)]


def path_text(path: Path | None) -> str:
    """Return a path as tables hold it; "" for None."""
    return "" if path is None else str(path)
