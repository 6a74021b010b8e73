"""A control plane behind a real port, over a real state folder."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc
from prometheus_client import CollectorRegistry

from coalmine.access.target import Target, with_metadata
from coalmine.access.tls_files import Tls
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import (
    ReportsServicer,
    RouteControlStub,
    add_ReportsServicer_to_server,
)
from coalmine.errors import NotFound
from coalmine.listener.reflection import ReflectedMethods
from coalmine_router.config.file import RouterConfig
from coalmine_router.control.listener import ControlListener
from coalmine_router.control.plane import ControlPlane
from coalmine_router.table import Route, RouteTable
from tests.doubles.backends_rig import reaching
from tests.doubles.proxy import FollowingProxy


def router_config(state: Path, target: str, *, green: str = "", **route: Any) -> RouterConfig:
    """Return a configuration with the route `digits`: stable and canary on blue, int8 on green."""
    return RouterConfig.model_validate(
        {
            "control": {"listen": "127.0.0.1:0", "state": str(state)},
            "backends": {"blue": {"targets": [target]}, "green": {"targets": [green or target]}},
            "routes": [
                {
                    "name": "digits",
                    "match": {"model": "digits"},
                    "variants": {
                        "stable": {"backend": "blue", "version": "1"},
                        "canary": {"backend": "blue", "version": "2"},
                        "int8": {"backend": "green", "model": "digits-int8"},
                    },
                    **route,
                }
            ],
        }
    )


class KnownMismatches:
    """An observer that knows one mismatch and one trial, and has counted one request a variant."""

    def __init__(self) -> None:
        self.asked: list[pb.ListMismatchesRequest] = []
        self.trials_asked: list[tuple[str, str, int]] = []

    def describe(self, route: Route, status: pb.RouteStatus) -> None:
        status.counting_since_ns = 1
        for variant in status.variants:
            variant.requests = 1

    async def trials(self, route: str, candidate: str, limit: int) -> list[pb.ComparisonCounts]:
        self.trials_asked.append((route, candidate, limit))
        return [pb.ComparisonCounts(candidate="canary")] if route in {"digits", "gone"} else []

    async def mismatches(self, wanted: pb.ListMismatchesRequest) -> list[pb.Mismatch]:
        self.asked.append(wanted)
        return [pb.Mismatch(id="m1", route=wanted.route)]

    async def mismatch(self, route: str, mismatch_id: str) -> pb.Mismatch:
        if mismatch_id != "m1":
            raise NotFound(f"route '{route}' has no mismatch '{mismatch_id}'")
        return pb.Mismatch(id=mismatch_id, route=route, request=b"body")


class UnreadReports(ReportsServicer):
    """Takes in no reports: who may send them is seen by that."""

    async def Send(self, _requests: Any, context: Any) -> None:  # type: ignore[override]
        await context.abort(grpc.StatusCode.ABORTED, "let in")


class ControlRig:
    """`async with ControlRig(config) as rig:` answers on `rig.channel`; `rig.stub` calls it.

    The channel is opened with `tls`, and shows `token` with every call. Reports are not taken.
    """

    def __init__(
        self,
        config: RouterConfig,
        *,
        socket: str = "",
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        self._config = config
        self._tls = tls
        self._shown = Target("unix:", token=token, token_in_plaintext=True).token_metadata()
        self.listener = ControlListener(config.control, socket, SystemClock())
        self._reaching = reaching(is_lenient=True, may_lose_stable=True)
        self._group = asyncio.TaskGroup()
        self.registry = CollectorRegistry()
        self.learned = KnownMismatches()

    async def __aenter__(self) -> Self:
        self.backends = await self._reaching.__aenter__()
        self._plane = await ControlPlane.open(
            self._config.control.state,
            self._config.table(),
            backends=self.backends,
            clock=SystemClock(),
            registry=self.registry,
        )
        self.address = await self.listener.open(self._operators, self._proxies_offer)
        self._opened = Target(self.address, self._tls).open_aio_channel()
        self.channel = with_metadata(self._opened, self._shown)
        self.stub = RouteControlStub(self.channel)
        await self._group.__aenter__()
        self._following_files = self._group.create_task(self.listener.follow_tokens())
        self._deciding = self._group.create_task(self._plane.run())
        self._proxies: list[asyncio.Task[None]] = []
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        self._deciding.cancel()
        self._following_files.cancel()
        for each in self._proxies:
            each.cancel()
        await self._group.__aexit__(kind, error, traceback)
        await self._opened.close()
        await self._reaching.__aexit__(None, None, None)
        await self._plane.close()

    async def stop(self, grace_s: float = 30.0) -> None:
        """Stop answering as the process does: gracefully."""
        self._plane.end_streams()
        await self.listener.close(grace_s)

    def _operators(self, methods: ReflectedMethods) -> None:
        self._plane.add_control_to(methods, self.learned, self.listener.audit)

    def _proxies_offer(self, methods: ReflectedMethods) -> None:
        self._plane.add_feed_to(methods)
        server = cast("grpc.aio.Server", methods)
        add_ReportsServicer_to_server(UnreadReports(), server)

    def table(self) -> RouteTable:
        return self._plane.table()

    def follow(self, proxy: FollowingProxy) -> None:
        """Let `proxy` follow, until the stream or the rig ends."""
        self._proxies.append(self._group.create_task(proxy.run(self.channel)))

    async def set_weights(self, **weights_bp: int) -> pb.ChangeResponse:
        return await self.stub.SetWeights(
            pb.SetWeightsRequest(route="digits", weights_bp=weights_bp)
        )
