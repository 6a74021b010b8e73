"""What a caller sent beside the request: trace context, pin, metadata to pass on. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from coalmine.telemetry import VARIANT_KEY
from coalmine.trace_context import TRACEPARENT, TRACESTATE, Parent, parse
from coalmine_router.proxy.forward import travels_on

Pair = tuple[str, str | bytes]


class Caller(NamedTuple):
    """One call's metadata, read once."""

    parent: Parent | None
    tracestate: str
    pin: str | None
    metadata: list[Pair]

    def value(self, key: str) -> str | None:
        """Return the first value of a metadata key, or None."""
        for name, value in self.metadata:
            if name == key:
                return value if isinstance(value, str) else value.hex()
        return None


def caller_of(metadata: Iterable[Pair]) -> Caller:
    """Return what the metadata says. The traceparent is taken out: each hop writes its own."""
    parent, tracestate, pin = None, "", None
    kept: list[Pair] = []
    for pair in metadata:
        key, value = pair
        if key == TRACEPARENT:
            parent = parse(str(value))
        elif travels_on(key):
            kept.append(pair)
            if key == VARIANT_KEY:
                pin = str(value)
            elif key == TRACESTATE:
                tracestate = str(value)
    return Caller(parent, tracestate, pin, kept)
