"""One request on its way through the proxy: what was learnt of it by the time it ended."""

import random
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

import grpc

from coalmine import trace_context
from coalmine.control.v1 import control_pb2 as pb
from coalmine.trace_context import HeadSampler, Parent
from coalmine_router.channels import COPY_BYTES_MAX
from coalmine_router.proxy.backends import BoundVariant, Target
from coalmine_router.proxy.caller import Caller, Pair
from coalmine_router.proxy.forward import Outcome

_MESSAGE_CHARS_MAX: Final = 2_048
# An exchange without what callers and backends wrote, roughly: ids, names, times.
_HELD_BYTES: Final = 1_000


class Trace(NamedTuple):
    """The ids of a request's spans: the router's own, and the one of its call to the backend."""

    trace_id: bytes
    span_id: bytes
    call_span_id: bytes
    parent: Parent | None
    tracestate: str
    sampled: bool

    def traceparent(self) -> Pair:
        """Return the metadata that makes the backend's span a child of the call's."""
        header = trace_context.header(self.trace_id, self.call_span_id, sampled=self.sampled)
        return trace_context.TRACEPARENT, header


def begin_trace(caller: Caller, sampler: HeadSampler, rng: random.Random) -> Trace:
    """Return new span ids, in the caller's trace where there is one, and take the head decision."""
    bits = rng.getrandbits(256).to_bytes(32, "big")
    parent = caller.parent
    trace_id = parent.trace_id if parent else bits[16:]
    sampled = sampler.sampled(trace_id, parent)
    return Trace(trace_id, bits[:8], bits[8:16], parent, caller.tracestate, sampled)


class Began(NamedTuple):
    """A moment, by both clocks."""

    wall_ns: int
    counter_ns: int

    @classmethod
    def now(cls) -> "Began":
        """Return this moment."""
        return cls(time.time_ns(), time.perf_counter_ns())


class Assigned(NamedTuple):
    """What a request was given: a route, a variant with its address, and why."""

    route: str
    model: str
    revision: int
    variant: BoundVariant
    target: Target
    reason: pb.Assignment.ValueType
    shadows: list[str]
    timeout_s: float


class Copied(NamedTuple):
    """What shadows need of a request that was drawn for them."""

    request: bytes
    response: bytes
    metadata: list[Pair]

    @property
    def held_bytes(self) -> int:
        """Return about how much memory this takes."""
        pairs = sum(len(key) + len(value) for key, value in self.metadata)
        return len(self.request) + len(self.response) + pairs


class Ended(NamedTuple):
    """The facts of a request that has ended. Holds no body unless a shadow wants it."""

    trace: Trace
    began: Began
    ended_ns: int
    assigned: Assigned | None
    call_began_ns: int
    code: grpc.StatusCode
    message: str
    here: bool
    request_bytes: int
    response_bytes: int
    copied: Copied | None
    uncopied: str

    @property
    def held_bytes(self) -> int:
        """Return about how much memory this takes."""
        text = len(self.message) + len(self.trace.tracestate)
        return _HELD_BYTES + text + (self.copied.held_bytes if self.copied else 0)


@dataclass(slots=True)
class Exchange:
    """A request, as far as it got."""

    request: bytes
    caller: Caller
    trace: Trace
    began: Began
    assigned: Assigned | None = None
    call_began_ns: int = 0

    def ended(self, outcome: Outcome) -> Ended:
        """Return the facts of the request, which ends now with `outcome`."""
        copied, uncopied = self._copied(outcome)
        return Ended(
            self.trace,
            self.began,
            time.perf_counter_ns(),
            self.assigned,
            self.call_began_ns,
            outcome.code,
            outcome.message[:_MESSAGE_CHARS_MAX],
            outcome.here,
            len(self.request),
            len(outcome.response),
            copied,
            uncopied,
        )

    def _copied(self, outcome: Outcome) -> tuple[Copied | None, str]:
        """Return what shadows need, or why they get nothing; neither where none was drawn."""
        if self.assigned is None or not self.assigned.shadows:
            return None, ""
        if not outcome.is_ok:
            return None, "primary_failed"
        if len(self.request) + len(outcome.response) > COPY_BYTES_MAX:
            return None, "too_large"
        return Copied(self.request, outcome.response, self.caller.metadata), ""
