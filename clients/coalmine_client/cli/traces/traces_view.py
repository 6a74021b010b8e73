"""How a trace looks to the operator. Pure: from spans to what rich prints."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType

from coalmine import telemetry as t
from coalmine_client.cli.console import (
    BAD,
    DOUBTFUL,
    FAINT,
    GOOD,
    STRONG,
    Cell,
    add_row,
    group,
    line,
    moment,
    table,
)
from coalmine_client.cli.traces.traces_tree import Branch, branches
from coalmine_client.otlp_spans import CLIENT, ERROR, KINDS, Event, Span

_BAR_CHARS: Final = 16
_SIDES: Final = (t.DIFFERENCE_INDEX, t.DIFFERENCE_EXPECTED, t.DIFFERENCE_ACTUAL)
_INDEX: Final = re.compile(r"\[[\d, ]*\]")
_STYLES: Final[Mapping[str, str]] = {
    "OK": GOOD,
    "match": GOOD,
    "pass": GOOD,
    "mismatch": BAD,
    "error": BAD,
    "fail": BAD,
    "inconclusive": DOUBTFUL,
}


def traces_view(traces: Mapping[str, Sequence[Span]]) -> RenderableType:
    """Return the traces one under the other; never called without any."""
    parts: list[RenderableType] = []
    for trace_id, spans in traces.items():
        parts += [line(), _trace_view(trace_id, spans)]
    return group(parts[1:])


def _trace_view(trace_id: str, spans: Sequence[Span]) -> RenderableType:
    tree = branches(spans)
    began_ns = min(span.started_ns for span in spans)
    took_ns = max(span.ended_ns for span in spans) - began_ns
    rows = table("=span", "=kind", "who", ">ms", f"={'0 … ' + _in_ms(took_ns) + ' ms'}", "came to")
    for branch in tree:
        add_row(rows, *_span_cells(branch, began_ns, took_ns))
    told = [each for branch in tree for each in _detail_lines(branch.span)]
    return group([_trace_head(trace_id, tree[0].span), rows, *told])


def _trace_head(trace_id: str, root: Span) -> RenderableType:
    said = root.attributes
    facts = [moment(root.started_ns)]
    if t.ROUTE in said:
        facts.append(f"route {said[t.ROUTE]}")
    if t.ASSIGNMENT in said:
        facts.append(f"{said.get(t.VARIANT)} by {said[t.ASSIGNMENT]}")
    for name, word in ((t.CHOSEN, "instead of"), (t.SEGMENT, "segment"), (t.REQUEST_ID, "request")):
        if name in said:
            facts.append(f"{word} {said[name]}")
    return line((trace_id, STRONG), "   ", " · ".join(facts))


# ---------------------------------------------------------------- a row


def _span_cells(branch: Branch, began_ns: int, took_ns: int) -> Iterator[Cell]:
    span = branch.span
    yield branch.lines + _span_name(span)
    yield (_kind_name(span).lower(), FAINT)
    yield _peer_or_service(span)
    yield _in_ms(span.duration_ns)
    yield (_time_bar(span, began_ns, took_ns), FAINT)
    yield _outcome_cell(span)


def _span_name(span: Span) -> str:
    """Return the span's name, of a method without its service."""
    return span.name.rpartition("/")[2]


def _kind_name(span: Span) -> str:
    return KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0]


def _peer_or_service(span: Span) -> str:
    said = span.attributes
    if t.COMPARE_CANDIDATE in said:
        return _pair(said)
    if span.kind == CLIENT and t.SERVER_ADDRESS in said:
        port = f":{said[t.SERVER_PORT]}" if t.SERVER_PORT in said else ""
        return f"{said[t.SERVER_ADDRESS]}{port}"
    version = f" v{said[t.MODEL_VERSION]}" if t.MODEL_VERSION in said else ""
    return f"{span.service}{version}"


def _pair(said: Mapping[str, Any]) -> str:
    return f"{said[t.COMPARE_CANDIDATE]} against {said.get(t.COMPARE_REFERENCE, '')}"


def _in_ms(duration_ns: int) -> str:
    return f"{duration_ns / 10**6:,.2f}"


def _time_bar(span: Span, began_ns: int, took_ns: int) -> str:
    """Return when it ran, of the whole trace; at least one character."""
    if not took_ns:
        return "━"
    first = min((span.started_ns - began_ns) * _BAR_CHARS // took_ns, _BAR_CHARS - 1)
    length = max(1, round(span.duration_ns * _BAR_CHARS / took_ns))
    return " " * first + "━" * min(length, _BAR_CHARS - first)


def _outcome_cell(span: Span) -> Cell:
    said = span.attributes
    words = str(said.get(t.COMPARE_OUTCOME) or said.get(t.VERDICT) or said.get(t.RPC_STATUS) or "")
    style = _STYLES.get(words, BAD if span.status == ERROR else "")
    for name, before in ((t.COMPARE_KIND, ": "), (t.TIPPED, ", tipped the verdict: ")):
        if name in said:
            words += f"{before}{said[name]}"
    # A verdict's own line below says why.
    if span.status == ERROR and t.VERDICT not in said and span.status_text != words:
        words += f" {span.status_text}"
    return words, style


# ---------------------------------------------------------------- below the tree


def _detail_lines(span: Span) -> Iterator[RenderableType]:
    """Yield what a comparison or a verdict has to say, in lines of its own."""
    said = span.attributes
    if t.COMPARE_OUTCOME in said and span.events:
        yield line(
            (_pair(said), STRONG), f", {said.get(t.COMPARE_ROLE, '')}: ", (_extent_text(said), BAD)
        )
        for event in span.events:
            yield from _difference_lines(event)
    if t.VERDICT in said:
        yield line((_pair(said), STRONG), f": {said.get(t.VERDICT_REASON, '')}")
        yield from (_gate_line(each) for each in span.events if each.name == t.GATE_EVENT)
    for trace_id, _ in span.links:
        if trace_id != span.trace_id and t.VERDICT in said:
            yield line("  tipped by trace ", (trace_id, STRONG))


def _extent_text(said: Mapping[str, Any]) -> str:
    facts = [str(said.get(t.COMPARE_OUTCOME, ""))]
    if t.COMPARE_ROWS in said:
        facts.append(f"{said.get(t.COMPARE_ROWS_MISMATCH, 0)} of {said[t.COMPARE_ROWS]} rows")
    if t.COMPARE_MAX_ABS_DIFF in said:
        facts.append(f"max |diff| {_number_text(said[t.COMPARE_MAX_ABS_DIFF])}")
    if t.COMPARE_NOISE in said:
        facts.append(f"the reference against itself: {said[t.COMPARE_NOISE]}")
    return ", ".join(facts)


def _number_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _difference_lines(event: Event) -> Iterator[RenderableType]:
    said = event.attributes
    rule = f" (rule {said[t.DIFFERENCE_RULE]})" if t.DIFFERENCE_RULE in said else ""
    yield line(
        "  ",
        (str(said.get(t.DIFFERENCE_NAME, "answer")), STRONG),
        (f" {said.get(t.DIFFERENCE_KIND, '')}", BAD),
        (rule, FAINT),
    )
    yield from (line(f"    {each}") for each in _worst_elements(said))


def _worst_elements(said: Mapping[str, Any]) -> Iterator[str]:
    """Yield the worst elements, one each where it is certain which texts belong together."""
    texts = [str(said.get(each, "")) for each in _SIDES]
    indices, expected, actual = _INDEX.findall(texts[0]), *(text.split(", ") for text in texts[1:])
    if len(indices) == len(expected) == len(actual):
        for each in zip(indices, expected, actual, strict=True):
            yield "at {}: expected {}, got {}".format(*each)
    elif any(texts):
        where = f"at {texts[0]}: " if texts[0] else ""
        yield f"{where}expected {texts[1] or 'nothing'}; got {texts[2] or 'nothing'}"


def _gate_line(event: Event) -> RenderableType:
    said = event.attributes
    finding = str(said.get("finding", ""))
    return line(
        f"  {said.get('gate', '')}: ",
        (finding, _STYLES.get(finding, "")),
        f" {said.get('reason', '')}",
    )
