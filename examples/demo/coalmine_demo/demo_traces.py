"""The trace files that router and server left: OTLP JSON, one object a line."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coalmine.telemetry import COMPARE_CANDIDATE, COMPARE_OUTCOME, ROUTER_SERVICE, SERVER_SERVICE
from coalmine_client.otlp_spans import CLIENT, SERVER, Span, line_of, spans_of


@dataclass(frozen=True, slots=True)
class Traces:
    """All spans, by trace id."""

    by_id: Mapping[str, list[Span]]

    def whole_traces(self) -> list[str]:
        """Return the traces that go from the router's request through its call into the server."""
        return [trace_id for trace_id, spans in self.by_id.items() if _is_whole(spans)]

    def mismatches(self) -> dict[str, list[str]]:
        """Return, by candidate, the traces with a comparison that is a mismatch."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for trace_id, spans in self.by_id.items():
            for span in spans:
                if span.attributes.get(COMPARE_OUTCOME) == "mismatch":
                    found[str(span.attributes[COMPARE_CANDIDATE])].append(trace_id)
        return dict(found)

    def lines_of(self, trace_ids: Collection[str]) -> Iterator[str]:
        """Return these traces again as OTLP JSON, one trace a line."""
        for trace_id in trace_ids:
            yield line_of(self.by_id[trace_id])


def read_traces(files: Iterable[Path]) -> Traces:
    """Return the spans in `files`. Raises ValueError for a line that is not OTLP JSON."""
    by_id: defaultdict[str, list[Span]] = defaultdict(list)
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                for span in spans_of(line):
                    by_id[span.trace_id].append(span)
    return Traces(by_id)


def pick(traces: Traces, each: int) -> list[str]:
    """Return up to `each` whole traces for every candidate that differs there, without repeats."""
    whole = set(traces.whole_traces())
    picked: dict[str, None] = {}
    for trace_ids in traces.mismatches().values():
        fresh = [trace_id for trace_id in trace_ids if trace_id in whole - picked.keys()]
        picked.update(dict.fromkeys(fresh[:each]))
    return list(picked)


def _is_whole(spans: list[Span]) -> bool:
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        if span.service == SERVER_SERVICE and span.kind == SERVER:
            call = by_id.get(span.parent_id)
            if call is None or call.service != ROUTER_SERVICE or call.kind != CLIENT:
                return False
            request = by_id.get(call.parent_id)
            if request is None or request.service != ROUTER_SERVICE or request.kind != SERVER:
                return False
    return any(span.service == SERVER_SERVICE for span in spans)
