"""The record of one request on its way through the proxy, until it has ended."""

import random
import time
from typing import NamedTuple

from coalmine import trace_context
from coalmine.control.v1 import control_pb2 as pb
from coalmine.trace_context import HeadSampler, Parent
from coalmine_router.metadata import Pair, with_token
from coalmine_router.proxy.caller import Caller
from coalmine_router.proxy.copy_plan import NO_COPIES, CopyPlan
from coalmine_router.proxy.forward import Attempt
from coalmine_router.proxy.routing import BoundVariant, RoutedRoute


class Trace(NamedTuple):
    """The ids of a request's spans: the router's own, and the one of its first call."""

    trace_id: bytes
    span_id: bytes
    call_span_id: bytes
    parent: Parent | None
    sampled: bool


def begin_trace(caller: Caller, sampler: HeadSampler, rng: random.Random) -> Trace:
    """Return new span ids and the head sampler's decision, in the caller's trace if it has one."""
    bits = rng.getrandbits(256).to_bytes(32, "big")
    parent = caller.parent
    trace_id = parent.trace_id if parent else bits[16:]
    return Trace(trace_id, bits[:8], bits[8:16], parent, sampler.is_sampled(trace_id, parent))


class Exchange:
    """A request, as far as it has come. A stream with all its messages is one exchange."""

    # Defaults on the class, for fields that most requests never set.
    timeout_s = 0.0
    model = ""
    # The version that the caller named, where a variant has another.
    version = ""
    routed: RoutedRoute | None = None
    # The variant that answers, with the reason; and the chosen one, where another stands in for it.
    bound: BoundVariant | None = None
    reason: "pb.Assignment.ValueType" = pb.ASSIGNMENT_UNSPECIFIED
    chosen: BoundVariant | None = None
    chosen_by: "pb.Assignment.ValueType" = pb.ASSIGNMENT_UNSPECIFIED
    copies: CopyPlan = NO_COPIES
    attempts: tuple[Attempt, ...] = ()
    turned_away = ""
    is_reported = False

    def __init__(
        self,
        method: str,
        request: bytes,
        caller: Caller,
        trace: Trace,
        *,
        wall_ns: int,
        began_ns: int,
    ) -> None:
        self.method = method
        self.request = request
        self.request_bytes = len(request)
        self.caller = caller
        self.trace = trace
        self.wall_ns = wall_ns
        self.began_ns = began_ns

    @property
    def is_pinned(self) -> bool:
        """Whether the caller chose the variant."""
        return self.reason == pb.ASSIGNMENT_PINNED

    def bound_variant(self) -> BoundVariant:
        """Return the variant that answers. The request must have been assigned."""
        assert self.bound is not None  # noqa: S101 - the caller has assigned it
        return self.bound

    @property
    def stamp(self) -> tuple[Pair, ...]:
        """The trailing metadata of the answer: the variant and the revision."""
        bound = self.bound_variant()
        return bound.stamp_for(self.version) if self.version else bound.stamp

    def left_s(self) -> float:
        """Return the seconds that are left of its time."""
        return self.timeout_s - (time.perf_counter_ns() - self.began_ns) / 1e9

    def add_attempt(self, attempt: Attempt) -> None:
        """Note one more of the request's calls."""
        self.attempts = (*self.attempts, attempt) if self.attempts else (attempt,)

    def metadata_of(self, attempt: Attempt) -> list[Pair]:
        """Return the metadata that a call sends with the request."""
        trace = self.trace
        header = trace_context.traceparent(trace.trace_id, attempt.span_id, sampled=trace.sampled)
        metadata, token_metadata = self.caller.metadata, attempt.bound.endpoints.token_metadata
        if token_metadata:
            metadata = with_token(metadata, token_metadata)
        return [*metadata, (trace_context.TRACEPARENT, header)]

    def fall_back_to_stable(self) -> None:
        """Let stable answer instead of the variant that was chosen."""
        assert self.routed is not None  # noqa: S101 - a chosen variant has a route
        self.chosen, self.chosen_by = self.bound, self.reason
        self.bound, self.reason = self.routed.stable, pb.ASSIGNMENT_FALLBACK
        self.copies = self.copies.when_stable_answers()
