"""A control plane behind a real port, over a real state folder."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from prometheus_client import CollectorRegistry

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine.errors import NotFound
from coalmine_router.channels import Channels
from coalmine_router.config import RouterConfig
from coalmine_router.control.plane import ControlPlane
from coalmine_router.table import Route, RouteTable
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
    """An observer that knows one mismatch, and has counted one request a variant."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def describe(self, route: Route, status: pb.RouteStatus) -> None:
        status.counting_since_ns = 1
        for variant in status.variants:
            variant.requests = 1

    async def mismatches(self, route: str, output: str, limit: int) -> list[pb.Mismatch]:
        self.asked.append((route, output, limit))
        return [pb.Mismatch(id="m1", route=route)]

    async def mismatch(self, route: str, mismatch_id: str) -> pb.Mismatch:
        if mismatch_id != "m1":
            raise NotFound(f"route '{route}' has no mismatch '{mismatch_id}'")
        return pb.Mismatch(id=mismatch_id, route=route, request=b"body")


class ControlRig:
    """`async with ControlRig(config) as rig:` answers on `rig.channel`; `rig.stub` calls it."""

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._channels = Channels()
        self._group = asyncio.TaskGroup()
        self.registry = CollectorRegistry()
        self.learned = KnownMismatches()

    async def __aenter__(self) -> Self:
        self._plane = await ControlPlane.open(
            self._config, channels=self._channels, clock=SystemClock(), registry=self.registry
        )
        self._server = grpc.aio.server()
        self._plane.add_to(self._server, self.learned)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        self.channel = grpc.aio.insecure_channel(self.address)
        self.stub = RouteControlStub(self.channel)
        await self._group.__aenter__()
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
        for each in self._proxies:
            each.cancel()
        await self._group.__aexit__(kind, error, traceback)
        await self.channel.close()
        await self._channels.close()
        await self._plane.close()

    async def stop(self, grace_s: float = 30.0) -> None:
        """Stop answering as the process does: gracefully."""
        self._plane.end_streams()
        await self._server.stop(grace_s)

    def table(self) -> RouteTable:
        return self._plane.table()

    def follow(self, proxy: FollowingProxy) -> None:
        """Let `proxy` follow, until the stream or the rig ends."""
        self._proxies.append(self._group.create_task(proxy.run(self.channel)))

    async def set_weights(self, **weights_bp: int) -> pb.ChangeResponse:
        return await self.stub.SetWeights(
            pb.SetWeightsRequest(route="digits", weights_bp=weights_bp)
        )
