"""One request on its way through the proxy: what was learnt of it by the time it ended."""

import random
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from coalmine import trace_context
from coalmine.control.v1 import control_pb2 as pb
from coalmine.trace_context import HeadSampler, Parent
from coalmine_router.metadata import Pair
from coalmine_router.proxy.caller import Caller
from coalmine_router.proxy.forward import Attempt
from coalmine_router.proxy.routing import BoundVariant, RoutedRoute


class Trace(NamedTuple):
    """The ids of a request's spans: the router's own, and the one of its first call."""

    trace_id: bytes
    span_id: bytes
    call_span_id: bytes
    parent: Parent | None
    sampled: bool

    def traceparent(self, span_id: bytes) -> Pair:
        """Return the metadata that makes the backend's span a child of the call's."""
        header = trace_context.header(self.trace_id, span_id, sampled=self.sampled)
        return trace_context.TRACEPARENT, header


def begin_trace(caller: Caller, sampler: HeadSampler, rng: random.Random) -> Trace:
    """Return new span ids, in the caller's trace where there is one, and take the head decision."""
    bits = rng.getrandbits(256).to_bytes(32, "big")
    parent = caller.parent
    trace_id = parent.trace_id if parent else bits[16:]
    return Trace(trace_id, bits[:8], bits[8:16], parent, sampler.sampled(trace_id, parent))


@dataclass(slots=True)
class Exchange:
    """A request, as far as it got. A stream is one exchange: all its messages count as one."""

    method: str
    request: bytes
    caller: Caller
    trace: Trace
    wall_ns: int
    began_ns: int
    request_bytes: int
    timeout_s: float = 0.0
    model: str = ""
    routed: RoutedRoute | None = None
    # Who answers, and why; where somebody else had been chosen, who and why.
    bound: BoundVariant | None = None
    reason: "pb.Assignment.ValueType" = pb.ASSIGNMENT_UNSPECIFIED
    chosen: BoundVariant | None = None
    chosen_by: "pb.Assignment.ValueType" = pb.ASSIGNMENT_UNSPECIFIED
    shadows: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    turned_away: str = ""
    is_reported: bool = False

    @property
    def is_pinned(self) -> bool:
        """Whether the caller chose the variant."""
        return self.reason == pb.ASSIGNMENT_PINNED

    def left_s(self) -> float:
        """Return how much of its time is left."""
        return self.timeout_s - (time.perf_counter_ns() - self.began_ns) / 1e9

    def fall_back(self) -> None:
        """Let stable answer instead of the variant that was chosen."""
        assert self.routed is not None  # noqa: S101 - whoever is chosen is of a route
        self.chosen, self.chosen_by = self.bound, self.reason
        self.bound, self.reason = self.routed.stable, pb.ASSIGNMENT_FALLBACK
