"""Pushes route tables to the proxies, and knows which of them serve by the newest."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import TableFeedServicer
from coalmine.errors import CoalmineError, InvalidRequest
from coalmine.status import answering
from coalmine_router.change_signal import ChangeSignal
from coalmine_router.control.current import CurrentTable
from coalmine_router.open_streams import End, OpenStreams, write_message
from coalmine_router.snapshot import table_message
from coalmine_router.table import RouteTable
from coalmine_router.unreachable import cut_in_the_middle

FOLLOWERS_MAX: Final = 256

_ID_MAX: Final = 128
_REFUSED_MAX: Final = 1_000
_TROUBLES_MAX: Final = 8
_TROUBLE_MAX: Final = 300

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True, eq=False)
class _Follower:
    """One stream, and the proxy at its end. Without an id, it hasn't said who it is."""

    since_ns: int
    end: End
    proxy_id: str = ""
    # What it serves by; what it was sent; up to which it has refused.
    revision: int = 0
    sent: int = 0
    refused_to: int = 0
    refused: str = ""
    saved_ns: int = 0
    trouble: str = ""
    # Set once it has said who it is.
    known: asyncio.Event = field(default_factory=asyncio.Event)
    # By route and variant, of the table that it was sent.
    reach: dict[tuple[str, str], pb.VariantReach] = field(default_factory=dict)
    wrong: list[CoalmineError] = field(default_factory=list)

    def serves(self, revision: int) -> bool:
        """Whether it serves by that revision, or a later one it was sent.

        A proxy may know higher numbers from a control process whose state is lost.
        """
        return revision <= self.revision <= self.sent

    def has_answered(self, revision: int) -> bool:
        return self.serves(revision) or revision <= self.refused_to


class TableFeed(TableFeedServicer):
    """The servicer that proxies follow. A slow one gets the newest table, not those it missed."""

    def __init__(
        self, current: CurrentTable, clock: Clock, *, followers_max: int = FOLLOWERS_MAX
    ) -> None:
        self._current = current
        self._clock = clock
        self._streams = OpenStreams("Follow", open_max=followers_max)
        self._followers: set[_Follower] = set()
        self._answers = ChangeSignal()
        self._sent_table = current.table
        self._message = table_message(current.table)

    @answering
    async def Follow(  # type: ignore[override]  # reads and writes at once: not a generator
        self, _requests: object, context: _Context
    ) -> None:
        """Send the table in force, now and whenever it is another, and hear what is served."""
        async with self._streams.open() as end:
            follower = _Follower(self._clock.wall_ns(), end)
            self._followers.add(follower)
            try:
                await self._serve_follower(follower, context)
            finally:
                self._followers.discard(follower)
                self._answers.wake_all()
        for error in follower.wrong:
            raise error

    async def wait_for_proxies(self, revision: int, timeout_s: float) -> tuple[int, int]:
        """Return how many proxies serve by `revision`, and how many there are.

        Waits until all of them have taken or refused it, `timeout_s` at most.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not all(each.has_answered(revision) for each in self._named_followers()):
                    await self._answers.wait()
        return self.current_proxies(revision), len(self._named_followers())

    def current_proxies(self, revision: int) -> int:
        """Return how many proxies serve by `revision` or later."""
        return sum(each.serves(revision) for each in self._named_followers())

    def proxies(self, route: str = "") -> list[pb.ProxyStatus]:
        """Return the proxies that follow, longest connected first, with their reach of a route."""
        known = self._current.table.by_route.get(route)
        variants = known.by_name if known else ()
        return [
            pb.ProxyStatus(
                proxy_id=each.proxy_id,
                revision=each.revision,
                connected_since_ns=each.since_ns,
                refused=each.refused,
                saved_ns=each.saved_ns,
                trouble=each.trouble,
                reach=[each.reach[route, of] for of in variants if (route, of) in each.reach],
            )
            for each in sorted(
                self._named_followers(), key=lambda each: (each.since_ns, each.proxy_id)
            )
        ]

    def least_available(self) -> dict[tuple[str, str], int]:
        """Return by route and variant how many addresses the proxy that has the fewest may call.

        Variants of which no proxy has said anything are missing.
        """
        least: dict[tuple[str, str], int] = {}
        for each in self._named_followers():
            for key, found in each.reach.items():
                least[key] = min(found.available, least.get(key, found.available))
        return least

    @property
    def turned_away(self) -> int:
        """How many streams were refused because too many are open."""
        return self._streams.turned_away

    def end_streams(self) -> None:
        """End all streams, so that a graceful stop needn't wait for them."""
        self._streams.end_all()

    def _named_followers(self) -> list[_Follower]:
        # A copy, in one step: metrics are read from another thread.
        return [each for each in tuple(self._followers) if each.proxy_id]

    async def _serve_follower(self, follower: _Follower, context: _Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_states(follower, context))
            group.create_task(self._push_tables(follower, context))

    async def _push_tables(self, follower: _Follower, context: _Context) -> None:
        try:
            while True:
                table = self._current.table
                if not await self._find_out_if_keeps_table(follower):
                    table = self._current.table
                    follower.sent = table.revision
                    await write_message(context, self._message_of(table))
                await self._current.wait_for_other(table)
        except grpc.aio.BaseError:  # the proxy went away meanwhile
            follower.end()

    async def _find_out_if_keeps_table(self, follower: _Follower) -> bool:
        """Return whether a proxy has a table that is better than the provisional one."""
        if self._current.is_provisional:
            await follower.known.wait()
        return self._current.is_provisional and follower.revision > 0

    def _message_of(self, table: RouteTable) -> pb.RouteTable:
        if self._sent_table is not table:
            self._sent_table, self._message = table, table_message(table)
        return self._message

    async def _read_states(self, follower: _Follower, context: _Context) -> None:
        while isinstance(state := await context.read(), pb.ProxyState):
            try:
                self._note_state(follower, state)
            except InvalidRequest as error:
                follower.wrong.append(error)
                break
            self._answers.wake_all()
        if isinstance(state, InvalidRequest):  # what its bytes were read as
            follower.wrong.append(state)
        follower.end()

    def _note_state(self, follower: _Follower, state: pb.ProxyState) -> None:
        if not 0 < len(state.proxy_id) <= _ID_MAX:
            raise InvalidRequest(f"proxy_id: expected 1 to {_ID_MAX} characters")
        if follower.proxy_id not in {"", state.proxy_id}:
            raise InvalidRequest(f"proxy '{follower.proxy_id}' now calls itself another")
        if not follower.proxy_id:
            self._end_older_stream(state.proxy_id)
        follower.proxy_id = state.proxy_id
        follower.revision = state.revision
        follower.known.set()
        # Said before it was sent a table, and not afterwards.
        follower.saved_ns = follower.saved_ns or state.saved_ns
        follower.refused = state.refused[:_REFUSED_MAX]
        follower.trouble = state.trouble[:_TROUBLE_MAX]
        follower.refused_to = min(state.refused_revision, follower.sent) if state.refused else 0
        follower.reach = _known_reach(state, self._current.table)

    def _end_older_stream(self, proxy_id: str) -> None:
        """End the stream that this proxy had before: its connection broke without a word."""
        for other in [each for each in self._named_followers() if each.proxy_id == proxy_id]:
            self._followers.discard(other)
            other.end()


def _known_reach(state: pb.ProxyState, table: RouteTable) -> dict[tuple[str, str], pb.VariantReach]:
    """Return what a proxy says of the variants that the table has; of each once, and in short."""
    known = {(route.name, variant) for route in table.routes for variant in route.by_name}
    return {
        (each.route, each.variant): pb.VariantReach(
            route=each.route,
            variant=each.variant,
            addresses=each.addresses,
            available=each.available,
            troubles=[
                cut_in_the_middle(text, _TROUBLE_MAX) for text in each.troubles[:_TROUBLES_MAX]
            ],
        )
        for each in state.reach
        if (each.route, each.variant) in known
    }
