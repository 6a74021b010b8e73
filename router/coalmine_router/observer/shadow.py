"""Sends copies to shadows: bounded and counted for each, so that one that hangs disturbs nobody."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import grpc
import structlog

from coalmine import trace_context
from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import StartError
from coalmine.inference import MODEL_INFER
from coalmine_router import wire
from coalmine_router.channels import Channels, address_of
from coalmine_router.metadata import Pair, showing
from coalmine_router.observer.compare import Answer
from coalmine_router.observer.exchange import Exchange, ShadowCall
from coalmine_router.observer.totals import ShadowTotals
from coalmine_router.table import Backend, Route, RouteTable, Variant

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """Bounds for each shadow variant."""

    queue_copies_max: int = 1_024
    # Of copies that wait or are under way.
    bytes_max: int = 64 * 1024 * 1024
    calls_max: int = 32
    call_ns_max: int = 5 * 10**9
    # A trace is written when the last of its shadows is done: none may wait for ever.
    wait_ns_max: int = 30 * 10**9


@dataclass(frozen=True, slots=True)
class _Copy:
    exchange: Exchange
    route: Route
    variant: Variant
    backend: Backend
    offered_ns: int


@dataclass(slots=True)
class _Lane:
    """The copies of one shadow variant."""

    totals: ShadowTotals
    queue: deque[_Copy] = field(default_factory=deque)
    held_bytes: int = 0
    workers: int = 0


_Method = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Answered = Callable[[Exchange, Route, ShadowCall], Awaitable[None]]
GivenUp = Callable[[Exchange], None]


class Shadows:
    """Every copy offered ends in exactly one of `answered` and `given_up`."""

    def __init__(
        self,
        *,
        channels: Channels,
        clock: Clock,
        rng: random.Random,
        answered: Answered,
        given_up: GivenUp,
        limits: ShadowLimits,
    ) -> None:
        self._channels = channels
        self._clock = clock
        self._rng = rng
        self._answered = answered
        self._given_up = given_up
        self._limits = limits
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def totals(self) -> Iterator[tuple[tuple[str, str], ShadowTotals]]:
        """Return the counts by route and variant; those of unknown names under ""."""
        return ((key, lane.totals) for key, lane in list(self._lanes.items()))

    async def run(self) -> None:
        """Serve until cancelled; then give up what waits."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._open(tasks)
        finally:
            self._give_up_all()

    async def settled(self) -> None:
        """Return once no copy waits or is under way."""
        await self._idle.wait()

    async def _open(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        try:
            await asyncio.Event().wait()
        finally:
            self._tasks = None  # a group that ends no longer cancels what is begun in it

    def offer(self, exchange: Exchange, name: str, table: RouteTable) -> None:
        """Queue a copy for the shadow `name`, or give it up and count why."""
        route = table.by_route.get(exchange.report.route)
        variant = route.by_name.get(name) if route else None
        lane = self._lane(route, variant)
        lane.totals.offered += 1
        if route is None or variant is None:
            self._drop(lane, exchange, "unknown_variant")
            return
        reason = _uncopied(exchange.report) or self._refusal(lane, exchange)
        if reason:
            self._drop(lane, exchange, reason)
            return
        backend = table.by_backend[variant.backend]
        lane.queue.append(_Copy(exchange, route, variant, backend, self._clock.monotonic_ns()))
        lane.held_bytes += exchange.size_bytes
        self._employ(lane)

    def _lane(self, route: Route | None, variant: Variant | None) -> _Lane:
        key = (route.name if route else "", variant.name if variant else "")
        found = self._lanes.get(key)
        if found is None:
            found = self._lanes[key] = _Lane(ShadowTotals())
        return found

    def _refusal(self, lane: _Lane, exchange: Exchange) -> str:
        if self._tasks is None:
            return "stopping"
        if exchange.size_bytes > self._limits.bytes_max:
            return "too_large"
        is_full = (
            len(lane.queue) >= self._limits.queue_copies_max
            or lane.held_bytes + exchange.size_bytes > self._limits.bytes_max
        )
        return "queue_full" if is_full else ""

    def _drop(self, lane: _Lane, exchange: Exchange, reason: str) -> None:
        lane.totals.drop(reason)
        self._given_up(exchange)

    def _give_up_all(self) -> None:
        for lane in self._lanes.values():
            while lane.queue:
                self._drop(lane, lane.queue.popleft().exchange, "stopping")
            lane.held_bytes = 0

    # ------------------------------------------------------------ workers

    def _employ(self, lane: _Lane) -> None:
        if self._tasks is not None and lane.workers < self._limits.calls_max:
            lane.workers += 1
            self._idle.clear()
            self._tasks.create_task(self._work(lane))

    async def _work(self, lane: _Lane) -> None:
        try:
            while lane.queue:
                await self._serve(lane, lane.queue.popleft())
        finally:
            lane.workers -= 1
            if not any(each.workers for each in self._lanes.values()):
                self._idle.set()

    async def _serve(self, lane: _Lane, copy: _Copy) -> None:
        try:
            call = await self._called(lane, copy)
            if call is not None:
                lane.totals.sent += 1
                await self._answered(copy.exchange, copy.route, call)
        except Exception:  # noqa: BLE001 - one odd copy must not end the others
            _log.exception("shadow_failed", route=copy.route.name, variant=copy.variant.name)
        finally:
            lane.held_bytes -= copy.exchange.size_bytes

    async def _called(self, lane: _Lane, copy: _Copy) -> ShadowCall | None:
        if self._clock.monotonic_ns() - copy.offered_ns > self._limits.wait_ns_max:
            self._drop(lane, copy.exchange, "expired")
            return None
        try:
            return await self._call(copy)
        except asyncio.CancelledError:
            self._drop(lane, copy.exchange, "stopping")
            raise

    # ------------------------------------------------------------ the call

    async def _call(self, copy: _Copy) -> ShadowCall:
        span_id = self._rng.getrandbits(64).to_bytes(8, "big")
        target = self._rng.choice(copy.backend.targets)
        started_ns, began_ns = self._clock.wall_ns(), self._clock.monotonic_ns()
        answer = await self._answer(copy, target, span_id)
        return ShadowCall(
            variant=copy.variant.name,
            backend=copy.variant.backend,
            address=address_of(target),
            span_id=span_id,
            started_ns=started_ns,
            duration_ns=self._clock.monotonic_ns() - began_ns,
            answer=answer,
        )

    async def _answer(self, copy: _Copy, target: str, span_id: bytes) -> Answer:
        override = wire.override(copy.variant.model, copy.variant.version)
        timeout_ns = min(copy.route.timeout_ns, self._limits.call_ns_max)
        try:
            channel = self._channels.channel(copy.backend, target)
            method: _Method = channel.unary_unary(f"/{MODEL_INFER}")
            passed = _metadata(copy.exchange.report, span_id)
            body = await method(
                copy.exchange.request + override,
                metadata=showing(passed, self._channels.shown(copy.backend)),
                timeout=timeout_ns / 10**9,
            )
        except grpc.aio.AioRpcError as error:
            return Answer(code=error.code().name, message=error.details() or "")
        except (ValueError, TypeError, grpc.aio.UsageError, StartError) as error:
            # Metadata that gRPC refuses to send, a channel that was closed, files that are wrong.
            return Answer(code="INTERNAL", message=f"not sent: {error}")
        return Answer(body)


def _uncopied(report: pb.Report) -> str:
    """Return why the proxy sent no bodies, or why they are of no use; empty: they are here."""
    if report.uncopied:
        return report.uncopied
    if report.status_code != 0:
        return "primary_failed"
    return "" if report.method == MODEL_INFER else "not_comparable"


def _metadata(report: pb.Report, span_id: bytes) -> list[Pair]:
    """Return what the caller sent, with the shadow call's span as the parent of the shadow's."""
    parent = trace_context.header(report.trace_id, span_id, sampled=report.sampled)
    own: list[Pair] = [(trace_context.TRACEPARENT, parent)]
    if report.tracestate:
        own.append((trace_context.TRACESTATE, report.tracestate))
    passed = [(each.key, _value(each)) for each in report.metadata]
    return [*passed, *own]


def _value(pair: pb.Metadata) -> str | bytes:
    return pair.value if pair.key.endswith("-bin") else pair.value.decode(errors="replace")
