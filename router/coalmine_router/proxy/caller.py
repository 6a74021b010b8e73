"""The metadata of a call: trace context, pin, and the pairs to pass on. Pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from coalmine.access.tls_files import AUTHORIZATION
from coalmine.telemetry import VARIANT_KEY
from coalmine.trace_context import TRACEPARENT, TRACESTATE, Parent, parse, traceparent
from coalmine_router.metadata import Pair, is_passed_on


class Caller(NamedTuple):
    """One call's metadata, read once."""

    parent: Parent | None
    tracestate: str
    pin: str | None
    metadata: list[Pair]

    def metadata_value(self, key: str) -> str | None:
        """Return the first value of a metadata key, or None."""
        for name, value in self.metadata:
            if name == key:
                return value if isinstance(value, str) else value.hex()
        return None

    def trace(self) -> Iterator[Pair]:
        """Yield the caller's own trace context, for a call without a span of the router's."""
        parent = self.parent
        if parent is not None:
            yield TRACEPARENT, traceparent(parent.trace_id, parent.span_id, sampled=parent.sampled)


def caller_of(metadata: Iterable[Pair], *, drop_authorization: bool = False) -> Caller:
    """Return the caller by its metadata. It leaves out the traceparent: each hop writes its own.

    It also leaves out a token that is for the router: no backend may learn it. A tracestate
    without a valid traceparent belongs to no trace, as W3C defines it.
    """
    parent, tracestate, pin = None, "", None
    kept: list[Pair] = []
    for pair in metadata:
        key, value = pair
        if key == TRACEPARENT:
            parent = parse(str(value))
        elif is_passed_on(key) and not (drop_authorization and key == AUTHORIZATION):
            kept.append(pair)
            if key == VARIANT_KEY:
                pin = str(value)
            elif key == TRACESTATE:
                tracestate = ",".join(filter(None, (tracestate, str(value))))
    if tracestate and parent is None:
        return Caller(None, "", pin, [pair for pair in kept if pair[0] != TRACESTATE])
    return Caller(parent, tracestate, pin, kept)
