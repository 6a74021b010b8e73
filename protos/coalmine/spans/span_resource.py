"""The attributes that all spans of a process share: service, version and host."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points, version
from typing import Final

from opentelemetry.sdk.resources import (
    HOST_NAME,
    PROCESS_PID,
    SERVICE_NAME,
    SERVICE_VERSION,
    Resource,
    ResourceDetector,
    get_aggregated_resources,
)
from opentelemetry.util.types import AttributeValue

_UNNAMED: Final = "unknown_service"
# By it, and by no other, the page of Jaeger 2.13 knows which spans have one clock.
_JAEGERS_HOST: Final = "ip"
# Nobody's, as RFC 5737 and RFC 3849 have it. Nothing is sent there.
_ELSEWHERE: Final = (
    (socket.AF_INET, ("192.0.2.1", 9)),
    (socket.AF_INET6, ("2001:db8::1", 9)),
)


def resource(service: str, environ: Mapping[str, str] = os.environ) -> Resource:
    """Return the resource of this process's spans.

    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and detectors overrule our own attributes.
    """
    said: dict[str, AttributeValue] = {
        **get_aggregated_resources(list(_host_detectors()), _own_resource(service)).attributes,
        **_environment_resource().attributes,
    }
    if name := environ.get("OTEL_SERVICE_NAME"):
        said[SERVICE_NAME] = name
    return Resource(said)


def _own_resource(service: str) -> Resource:
    return Resource(
        {
            SERVICE_NAME: service,
            SERVICE_VERSION: version("coalmine"),
            HOST_NAME: socket.gethostname(),
            PROCESS_PID: os.getpid(),
            _JAEGERS_HOST: _own_ip(),
        }
    )


def _own_ip() -> str:
    """Return the address from which this machine calls others, or else one of its own."""
    for family, address in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect(address)
            return str(asking.getsockname()[0])
    return "127.0.0.1"


def _host_detectors() -> Iterator[ResourceDetector]:
    """Yield the SDK's detector of the host, which knows its id where there is one."""
    for each in entry_points(group="opentelemetry_resource_detector", name="host"):
        yield each.load()()


def _environment_resource() -> Resource:
    """Return what variables and the detectors that they name say; a name only where they do."""
    given = Resource.create()
    if not str(given.attributes[SERVICE_NAME]).startswith(_UNNAMED):
        return given
    return Resource({key: value for key, value in given.attributes.items() if key != SERVICE_NAME})
