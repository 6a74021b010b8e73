"""Which traces are shown: the newest, in memory that doesn't grow with the files. Pure."""

import heapq
from collections.abc import Callable, Collection, Iterable
from typing import Final

from coalmine.telemetry import COMPARE_OUTCOME, COMPARE_ROLE
from coalmine_client.otlp_spans import Span

SPANS_MAX: Final = 1_000

Wanted = Callable[[Span], bool]


def newest_ids(spans: Iterable[Span], limit: int, wanted: Wanted) -> list[str]:
    """Return the ids of the `limit` traces whose last wanted span began latest, the newest first.

    The result doesn't depend on the order of the spans. A trace is as new as its latest span, so a
    dropped trace comes back with a newer span.
    """
    found = _Newest(limit)
    for span in spans:
        if wanted(span):
            found.offer(span.trace_id, span.started_ns)
    return found.ids()


def spans_by_trace(spans: Iterable[Span], trace_ids: Collection[str]) -> dict[str, list[Span]]:
    """Return the spans of these traces, each once, in the order of the ids; 1,000 of each at most.

    A span comes twice where files are given beside what was made of them.
    """
    found: dict[str, dict[str, Span]] = {trace_id: {} for trace_id in trace_ids}
    for span in spans:
        trace = found.get(span.trace_id)
        if trace is not None and len(trace) < SPANS_MAX:
            trace.setdefault(span.span_id, span)
    return {trace_id: list(trace.values()) for trace_id, trace in found.items() if trace}


def is_any(_: Span) -> bool:
    """Return True: every span will do."""
    return True


def is_mismatch(span: Span) -> bool:
    """Return whether a candidate was found to differ; that the reference does is no mismatch."""
    told = span.attributes
    return told.get(COMPARE_OUTCOME) == "mismatch" and told.get(COMPARE_ROLE) != "noise"


class _Newest:
    """The newest traces so far. A heap entry's time is brought up to date when it comes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def offer(self, trace_id: str, at_ns: int) -> None:
        known = self._times.get(trace_id)
        if known is not None:
            self._times[trace_id] = max(known, at_ns)
        elif self._make_room(at_ns):
            self._times[trace_id] = at_ns
            heapq.heappush(self._heap, (at_ns, trace_id))

    def ids(self) -> list[str]:
        return sorted(self._times, key=lambda each: (-self._times[each], each))

    def _make_room(self, at_ns: int) -> bool:
        if len(self._times) < self._limit:
            return True
        oldest_ns, oldest = self._settle_oldest()
        if at_ns <= oldest_ns:
            return False
        heapq.heappop(self._heap)
        del self._times[oldest]
        return True

    def _settle_oldest(self) -> tuple[int, str]:
        while True:
            at_ns, trace_id = self._heap[0]
            now_ns = self._times[trace_id]
            if now_ns == at_ns:
                return at_ns, trace_id
            heapq.heapreplace(self._heap, (now_ns, trace_id))
