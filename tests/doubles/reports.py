"""Reports as a proxy makes them, and the table and settings that they are about."""

import itertools
from collections.abc import Sequence
from typing import Any

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.config.file import RouterConfig
from coalmine_router.config.route import RouteConfig
from tests.doubles.oip_backend import INFER

# The target of a backend that nobody calls.
UNUSED = "127.0.0.1:1"

STARTED_NS = 1_700_000_000_000_000_000
_numbers = itertools.count(1)


def router_config(*, route: dict[str, Any] | None = None, **backends: str) -> RouterConfig:
    """Return a router with the route `digits`: stable, canary and int8, one backend for each."""
    given = route or {}
    variants = {name: {"backend": name} for name in backends}
    variants["canary"] |= {"model": "digits-next", "version": "2"}
    return RouterConfig.model_validate(
        {
            "backends": {name: {"targets": [target]} for name, target in backends.items()},
            "routes": [
                {
                    "name": "digits",
                    "match": {"model": "digits"},
                    "variants": variants,
                    **given,
                    "gates": {"per": "request", "min_duration": "0s", **given.get("gates", {})},
                }
            ],
        }
    )


def settings(config: RouterConfig) -> dict[str, RouteConfig]:
    """Return the routes' settings by name."""
    return {route.name: route for route in config.routes}


def rules(default: str = "close", **outputs: Any) -> CompareConfig:
    """Return rules for comparing: `rules(logits={"rule": "exact"})`."""
    return CompareConfig.model_validate({"default": {"rule": default}, "outputs": outputs})


def report(
    request: bytes = b"",
    response: bytes = b"",
    *,
    shadows: Sequence[str] = (),
    status_code: int = 0,
    metadata: Sequence[tuple[str, bytes]] = (),
    **fields: Any,
) -> pb.Report:
    """Return the report of a request that `stable` answered in 3 ms, with ids of its own."""
    number = next(_numbers)
    made = pb.Report(
        trace_id=number.to_bytes(16, "big"),
        span_id=(number * 10 + 1).to_bytes(8, "big"),
        sampled=True,
        route="digits",
        variant="stable",
        assignment=pb.ASSIGNMENT_SPLIT,
        revision=7,
        weight_bp=10_000,
        method=INFER,
        started_ns=STARTED_NS,
        duration_ns=3_000_000,
        status_code=status_code,
        shadows=shadows,
        request_body=request,
        response_body=response,
        request_bytes=len(request),
        response_bytes=len(response),
        metadata=[pb.Metadata(key=key, value=value) for key, value in metadata],
        model="digits",
    )
    made.attempts.add(
        span_id=(number * 10 + 2).to_bytes(8, "big"),
        variant="stable",
        backend="stable",
        address="127.0.0.1:8001",
        started_ns=STARTED_NS + 100_000,
        duration_ns=2_800_000,
        status_code=status_code,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made
