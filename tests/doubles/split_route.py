"""A route of stable and canary, each on a backend of its own, and how calls of it end."""

from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from coalmine.process.addresses import bound_address, reserve
from coalmine_router.table import Backend, Limits, Match, Route, RouteTable, Variant
from tests.doubles.oip_backend import request_body
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.waiting import eventually

PIXELS = np.ones((1, 4), np.float32)
REQUEST = request_body("digits", pixels=PIXELS)
PIN_CANARY = (("x-coalmine-variant", "canary"),)


def split_route(canary_bp: int = 10_000, **parts: Any) -> Route:
    """Return the route `digits`; stable is on `blue`, canary on `green`."""
    variants = (
        Variant("stable", "blue", version="1", weight_bp=10_000 - canary_bp),
        Variant("canary", "green", model="digits-next", version="2", weight_bp=canary_bp),
    )
    given: dict[str, Any] = {"match": Match("digits"), "variants": variants, **parts}
    return Route("digits", **given)


def table_of(
    stable: str | tuple[str, ...],
    canary: str,
    *routes: Route,
    limits: Limits | None = None,
    revision: int = 3,
) -> RouteTable:
    """Return a table of these routes over the two backends."""
    targets = (stable,) if isinstance(stable, str) else stable
    backends = (Backend("blue", targets), Backend("green", (canary,)))
    return RouteTable(revision, backends, routes, limits or Limits())


def closed_port() -> str:
    """Return an address where nobody listens."""
    with reserve("127.0.0.1:0", shared=False) as held:
        return bound_address(held)


@dataclass(frozen=True)
class Ended:
    """How a call ended, as its caller saw it."""

    code: grpc.StatusCode
    message: str
    body: bytes
    trailing: dict[str, str | bytes]

    @property
    def variant(self) -> str | bytes | None:
        return self.trailing.get("x-coalmine-variant")

    @property
    def is_routers(self) -> bool:
        """Whether the router says that the error is its own."""
        return self.trailing.get("x-coalmine-origin") == "router"


async def ended(call: Any) -> Ended:
    """Return how a unary call ended, error or not."""
    try:
        body = await call
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata())
        return Ended(error.code(), error.details() or "", b"", trailing)
    trailing = dict(await call.trailing_metadata())
    return Ended(grpc.StatusCode.OK, "", body, trailing)


async def assert_all_let_out(proxy: ProxyRig) -> None:
    """Fail where a limit goes on counting a request that has ended."""
    admissions = [each.admission for each in proxy.plane.routing.by_name.values()]
    for each in (proxy.plane.admission, *admissions):
        await eventually(lambda: each.bytes == 0)  # noqa: B023 - waited for here
        assert (each.of, each.in_flight, each.unread_bytes) == (each.of, 0, 0)
