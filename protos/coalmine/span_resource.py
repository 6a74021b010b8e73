"""What every span of this process has in common: whose it is, of which version, on which host."""

import os
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points, version

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

_UNNAMED = "unknown_service"


def resource(service: str, environ: Mapping[str, str] = os.environ) -> Resource:
    """Return the resource of this process's spans.

    What OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and detectors say comes before our own.
    """
    said: dict[str, AttributeValue] = {
        **get_aggregated_resources(list(_host()), _own(service)).attributes,
        **_given().attributes,
    }
    if name := environ.get("OTEL_SERVICE_NAME"):
        said[SERVICE_NAME] = name
    return Resource(said)


def _own(service: str) -> Resource:
    return Resource(
        {
            SERVICE_NAME: service,
            SERVICE_VERSION: version("coalmine"),
            HOST_NAME: socket.gethostname(),
            PROCESS_PID: os.getpid(),
        }
    )


def _host() -> Iterator[ResourceDetector]:
    """Yield the SDK's detector of the host, which knows its id where there is one."""
    for each in entry_points(group="opentelemetry_resource_detector", name="host"):
        yield each.load()()


def _given() -> Resource:
    """Return what variables and the detectors that they name say; a name only where they do."""
    given = Resource.create()
    if not str(given.attributes[SERVICE_NAME]).startswith(_UNNAMED):
        return given
    return Resource({key: value for key, value in given.attributes.items() if key != SERVICE_NAME})
