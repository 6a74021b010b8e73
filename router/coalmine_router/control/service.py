"""RouteControl: what operators, the CLI and scripts call."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import unquote

import grpc

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlServicer
from coalmine.errors import InvalidRequest
from coalmine.status import answering
from coalmine_router.control import checked
from coalmine_router.control.conductor import Conductor
from coalmine_router.control.current import CurrentTable
from coalmine_router.control.feed import TableFeed
from coalmine_router.control.keeper import StateKeeper
from coalmine_router.control.plan import ShadowShare, Wish, WishedWeights
from coalmine_router.control.readiness_cache import ReadinessCache
from coalmine_router.control.route_history import change_message
from coalmine_router.open_streams import OpenStreams, write_message
from coalmine_router.snapshot import route_message
from coalmine_router.table import Route, RouteTable

_HISTORY: Final = 50
_TRIALS: Final = 20
_MISMATCHES: Final = 20
_ACKNOWLEDGED_S: Final = 1.0
# Of the caller's own deadline, what is left to bring the answer home.
_ANSWER_S: Final = 0.1

_Context = grpc.aio.ServicerContext[Any, Any]
# Who has proved to be the caller; "": nobody has.
CallerOf = Callable[[_Context], str]


class ObserverView(Protocol):
    """What the observer knows."""

    def describe(self, route: Route, status: pb.RouteStatus) -> None:
        """Fill in comparisons, reports, shadows, counting_since_ns, and each variant's traffic.

        What is wrong with the observer's files is added to the troubles.
        """
        ...

    async def trials(self, route: str, candidate: str, limit: int) -> list[pb.ComparisonCounts]:
        """Return a route's trials, newest first; with `candidate`, only its. Raises Unavailable."""
        ...

    async def mismatches(self, wanted: pb.ListMismatchesRequest) -> list[pb.Mismatch]:
        """Return the kept mismatches, without tensors and values. Raises InvalidRequest."""
        ...

    async def mismatch(self, route: str, mismatch_id: str, /) -> pb.Mismatch:
        """Return one mismatch, whole. Raises NotFound."""
        ...


class RouteControl(RouteControlServicer):
    """The servicer: checks what comes in, asks the part that knows, answers."""

    def __init__(
        self,
        *,
        current: CurrentTable,
        conductor: Conductor,
        feed: TableFeed,
        readiness: ReadinessCache,
        state: StateKeeper,
        queries: ObserverView,
        watchers: OpenStreams,
        known: CallerOf,
        clock: Clock,
    ) -> None:
        self._current = current
        self._conductor = conductor
        self._feed = feed
        self._readiness = readiness
        self._state = state
        self._queries = queries
        self._watchers = watchers
        self._known = known
        self._clock = clock

    # ------------------------------------------------------------ reading

    @answering
    async def ListRoutes(
        self, _request: pb.ListRoutesRequest, _context: _Context
    ) -> pb.ListRoutesResponse:
        """Return all routes of the table in force."""
        table = self._current.table
        return pb.ListRoutesResponse(
            revision=table.revision, routes=[route_message(route) for route in table.routes]
        )

    @answering
    async def GetRoute(self, request: pb.GetRouteRequest, _context: _Context) -> pb.RouteStatus:
        """Return one route, and what is known of it now."""
        return self._route_status(self._current.table, checked.plain_name("route", request.route))

    @answering
    async def WatchRoute(  # type: ignore[override]  # writes by itself: not a generator
        self, request: pb.WatchRouteRequest, context: _Context
    ) -> None:
        """Send the status at once, each interval and after each change, until the caller goes."""
        route = self._current.table.route(checked.plain_name("route", request.route)).name
        interval_s = checked.interval_s(request.interval_ms)
        async with self._watchers.open():
            while True:
                table = self._current.table
                await write_message(context, self._route_status(table, route))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await self._current.wait_for_other(table)

    @answering
    async def GetHistory(
        self, request: pb.GetHistoryRequest, _context: _Context
    ) -> pb.GetHistoryResponse:
        """Return a route's changes, newest first; also of a route that is gone."""
        route = checked.plain_name("route", request.route)
        changes = await self._state.history(route, checked.limit_or(request.limit, _HISTORY))
        if not changes:
            self._current.table.route(route)
        return pb.GetHistoryResponse(changes=[change_message(change) for change in changes])

    @answering
    async def ListTrials(
        self, request: pb.ListTrialsRequest, _context: _Context
    ) -> pb.ListTrialsResponse:
        """Return a route's trials, newest first; also of a route that is gone."""
        route = checked.plain_name("route", request.route)
        candidate = checked.one_line_text("candidate", request.candidate, checked.NAME_MAX)
        limit = checked.limit_or(request.limit, _TRIALS)
        found = await self._queries.trials(route, candidate, limit)
        if not found:
            self._current.table.route(route)
        return pb.ListTrialsResponse(trials=found)

    @answering
    async def ListMismatches(
        self, request: pb.ListMismatchesRequest, _context: _Context
    ) -> pb.ListMismatchesResponse:
        """Return the kept mismatches, the newest or the worst first, without tensors and values."""
        wanted = pb.ListMismatchesRequest(
            route=self._current.table.route(checked.plain_name("route", request.route)).name,
            output=checked.one_line_text("output", request.output, checked.REASON_MAX),
            candidate=checked.one_line_text("candidate", request.candidate, checked.NAME_MAX),
            kind=checked.one_line_text("kind", request.kind, checked.NAME_MAX),
            worst=request.worst,
            limit=checked.limit_or(request.limit, _MISMATCHES),
        )
        found = await self._queries.mismatches(wanted)
        return pb.ListMismatchesResponse(mismatches=found)

    @answering
    async def GetMismatch(self, request: pb.GetMismatchRequest, _context: _Context) -> pb.Mismatch:
        """Return one mismatch with its tensors."""
        route = self._current.table.route(checked.plain_name("route", request.route)).name
        return await self._queries.mismatch(route, checked.plain_name("id", request.id))

    # ------------------------------------------------------------ changing

    @answering
    async def SetWeights(
        self, request: pb.SetWeightsRequest, context: _Context
    ) -> pb.ChangeResponse:
        """Set weights; answered once they are on disk and in force."""
        if not request.weights_bp:
            raise InvalidRequest("weights_bp: expected one variant at least")
        weights = {
            checked.plain_name("variant", variant): weight
            for variant, weight in request.weights_bp.items()
        }
        return await self._change(self._wish(request, WishedWeights(weights), context), context)

    @answering
    async def SetShadow(self, request: pb.SetShadowRequest, context: _Context) -> pb.ChangeResponse:
        """Set the share that is copied to a variant."""
        edit = ShadowShare(checked.plain_name("variant", request.variant), request.share_bp)
        return await self._change(self._wish(request, edit, context), context)

    async def _change(self, wish: Wish, context: _Context) -> pb.ChangeResponse:
        table = await self._conductor.change(wish)
        current, total = await self._feed.wait_for_proxies(table.revision, _patience_s(context))
        return pb.ChangeResponse(
            route=route_message(table.route(wish.route)),
            revision=table.revision,
            proxies_current=current,
            proxies=total,
        )

    def _wish(
        self,
        request: pb.SetWeightsRequest | pb.SetShadowRequest,
        edit: WishedWeights | ShadowShare,
        context: _Context,
    ) -> Wish:
        said = checked.one_line_text("actor", request.actor, checked.NAME_MAX)
        return Wish(
            route=checked.plain_name("route", request.route),
            edit=edit,
            actor=checked.actor(said, self._known(context)) or _peer_address(context),
            reason=checked.one_line_text("reason", request.reason, checked.REASON_MAX),
            expect_revision=request.expect_revision,
        )

    def _route_status(self, table: RouteTable, name: str) -> pb.RouteStatus:
        route = table.route(name)
        status = pb.RouteStatus(
            route=route_message(route),
            revision=table.revision,
            proxies=self._feed.proxies(name),
            at_ns=self._clock.wall_ns(),
        )
        for variant in route.by_name:
            heard = self._readiness.of(name, variant)
            status.variants.add(name=variant, ready=heard.ready, reason=heard.reason)
        status.troubles.extend(self._state.troubles())
        self._queries.describe(route, status)
        return status


def unknown_caller(_context: _Context) -> str:
    """Return that nobody has proved who they are: no tokens, no certificates."""
    return ""


def _peer_address(context: _Context) -> str:
    """Return the caller's address, for the history of those who don't say who they are."""
    peer = unquote(context.peer())
    return peer.removeprefix("ipv4:").removeprefix("ipv6:")[: checked.NAME_MAX] or "unknown"


def _patience_s(context: _Context) -> float:
    """Return how long to wait for proxies: the change is made, the caller should hear of it."""
    left_s = context.time_remaining()
    return _ACKNOWLEDGED_S if left_s is None else max(0.0, min(_ACKNOWLEDGED_S, left_s - _ANSWER_S))
