"""A data plane behind a real port, with its reports in a list: the proxy without its process."""

import asyncio
import contextlib
import random
from typing import Self

import grpc

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_INFER
from coalmine.trace_context import HeadSampler
from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.registry import Backends
from coalmine_router.backends.resolve import Resolver
from coalmine_router.proxy.offered_methods import OfferedMethods
from coalmine_router.proxy.routing import routing_of
from coalmine_router.proxy.service import DataPlane
from coalmine_router.table import RouteTable

_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]


class ProxyRig:
    """`async with ProxyRig(table) as proxy:` routes by `table`; `proxy.channel` is a caller's."""

    def __init__(
        self,
        table: RouteTable | None,
        *,
        sampling_ratio: float = 1.0,
        intervals: Intervals | None = None,
        rules: EjectionRules | None = None,
    ) -> None:
        self.reports: list[pb.Report] = []
        self._rng = random.Random(7)
        self.backends = Backends(
            clock=SystemClock(),
            rng=self._rng,
            resolver=Resolver(),
            intervals=intervals,
            rules=rules,
        )
        sampler = HeadSampler(sampling_ratio, parent_based=True)
        self.plane = DataPlane(report=self._report, sampler=sampler, rng=self._rng)
        if table is not None:
            self.swap(table)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((OfferedMethods(self.plane, lambda: True),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self.channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)

    def _report(self, report: bytes, bodies: bytes) -> None:
        self.reports.append(pb.Report.FromString(report + bodies))

    def swap(self, table: RouteTable) -> None:
        self.backends.follow(table)
        before = self.plane.routing
        self.plane.route_by(routing_of(table, before, self.backends, self._rng.random))

    async def use_access(self, table: RouteTable) -> None:
        """Route by `table` once its backends are connected, or known to be out of reach."""
        self.swap(table)
        await self.backends.wait_until_warm(10)

    def infer(
        self,
        body: bytes,
        *,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        timeout: float | None = 10.0,
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        return self.ask(MODEL_INFER, body, metadata=metadata, timeout=timeout)

    def ask(
        self,
        method: str,
        body: bytes,
        *,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        timeout: float | None = 10.0,
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = self.channel.unary_unary(f"/{method}")
        return call(body, metadata=metadata, timeout=timeout)

    async def __aenter__(self) -> Self:
        self._life = contextlib.AsyncExitStack()
        tasks = await self._life.enter_async_context(asyncio.TaskGroup())
        self._running = tasks.create_task(self.backends.run())
        await self.backends.wait_until_warm(10)
        await self._server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close()
        await self._server.stop(None)
        self._running.cancel()
        await self._life.aclose()
        await self.backends.close()
