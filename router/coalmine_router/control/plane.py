"""Builds and joins the parts that decide: what takes a change from the disk to the proxies."""

import asyncio
from pathlib import Path
from typing import Any, Final, cast

import grpc
from prometheus_client import CollectorRegistry

from coalmine.access.audit_log import Audit, AuditedServicer
from coalmine.clock import Clock
from coalmine.control.v1.control_pb2_grpc import (
    add_RouteControlServicer_to_server,
    add_TableFeedServicer_to_server,
)
from coalmine.listener.reflection import ReflectedMethods
from coalmine_router.backends.registry import Backends
from coalmine_router.control.conductor import Conductor
from coalmine_router.control.feed import TableFeed
from coalmine_router.control.keeper import StateKeeper
from coalmine_router.control.metrics import ControlMetrics
from coalmine_router.control.readiness import ReadinessCheck
from coalmine_router.control.readiness_cache import ReadinessCache
from coalmine_router.control.service import ObserverView, RouteControl, unknown_caller
from coalmine_router.open_streams import OpenStreams
from coalmine_router.table import RouteTable

WATCHERS_MAX: Final = 256


class ControlPlane:
    """One router's decisions.

    Its life: `open`, `add_control_to` a server, `run` in a task. Its end: `end_streams`, stop
    the server, cancel `run`, `close`.
    """

    def __init__(
        self,
        state: StateKeeper,
        *,
        backends: Backends,
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        self._state = state
        self._clock = clock
        self._registry = registry
        self._current = state.current
        self._backends = backends
        self._backends_table = self._current.table
        self._backends.follow(self._backends_table)
        check = ReadinessCheck(backends)
        self._readiness = ReadinessCache(self._current, check)
        self._conductor = Conductor(self._current, state, check, clock)
        self._feed = TableFeed(self._current, clock)
        self._watchers = OpenStreams("WatchRoute", open_max=WATCHERS_MAX)
        self._metrics = ControlMetrics(
            self._current,
            self._feed,
            lambda: state.is_usable,
            {"change": self._conductor, "follow": self._feed, "watch": self._watchers},
        )
        registry.register(self._metrics)

    @classmethod
    async def open(
        cls,
        folder: Path,
        configured: RouteTable,
        *,
        backends: Backends,
        clock: Clock,
        registry: CollectorRegistry,
    ) -> "ControlPlane":
        """Return the plane, at the state that was saved, or without it: see StateKeeper.

        Raises StartError.
        """
        state = await StateKeeper.open(folder, configured, clock)
        return cls(state, backends=backends, clock=clock, registry=registry)

    def table(self) -> RouteTable:
        """Return the table in force."""
        return self._current.table

    @property
    def is_usable(self) -> bool:
        """Whether there is a state that takes changes."""
        return self._state.is_usable

    def add_control_to(
        self, methods: ReflectedMethods, queries: ObserverView, audit: Audit | None = None
    ) -> None:
        """Let a server answer RouteControl, with what the observer has learned.

        `audit` knows who asks, and records it.
        """
        service = RouteControl(
            current=self._current,
            conductor=self._conductor,
            feed=self._feed,
            readiness=self._readiness,
            state=self._state,
            queries=queries,
            watchers=self._watchers,
            known=audit.caller_of if audit is not None else unknown_caller,
            clock=self._clock,
        )
        recorded: Any = service if audit is None else AuditedServicer(service, audit)
        add_RouteControlServicer_to_server(recorded, cast("grpc.aio.Server", methods))

    def add_feed_to(self, methods: ReflectedMethods) -> None:
        """Let a server answer TableFeed."""
        add_TableFeedServicer_to_server(self._feed, cast("grpc.aio.Server", methods))

    async def run(self) -> None:
        """Carry out changes and keep readiness fresh, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_table())
            group.create_task(self._conductor.run())
            group.create_task(self._readiness.run())
            group.create_task(self._state.run())

    async def _follow_table(self) -> None:
        """Let the backends follow the table in force."""
        while True:
            self._backends_table = await self._current.wait_for_other(self._backends_table)
            self._backends.follow(self._backends_table)

    def end_streams(self) -> None:
        """End the calls that would never end by themselves; others are answered as before."""
        self._feed.end_streams()
        self._watchers.end_all()

    async def close(self) -> None:
        """Let go of the state folder."""
        self._registry.unregister(self._metrics)
        await self._state.close()
