import json
from pathlib import Path
from typing import Any

import pytest

from coalmine_demo.demo_traces import Traces, pick, read_traces

SERVER, CLIENT, INTERNAL = 2, 3, 1


def line(service: str, *spans: dict[str, Any]) -> str:
    attributes = [{"key": "service.name", "value": {"stringValue": service}}]
    resource = {
        "resource": {"attributes": attributes},
        "scopeSpans": [{"scope": {"name": "here"}, "spans": list(spans)}],
    }
    return json.dumps({"resourceSpans": [resource]})


def span(trace: str, own: str, parent: str = "", kind: int = SERVER, **more: Any) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": own,
        "parentSpanId": parent,
        "kind": kind,
        "name": "call",
    } | more


def comparison(trace: str, candidate: str, outcome: str) -> dict[str, Any]:
    said = {"coalmine.compare.candidate": candidate, "coalmine.compare.outcome": outcome}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in said.items()]
    compared = span(trace, "c0", "a0", INTERNAL, name="coalmine.compare")
    return compared | {"attributes": attributes}


def routed(trace: str, *more: dict[str, Any]) -> str:
    return line("coalmine-router", span(trace, "a0"), span(trace, "b0", "a0", CLIENT), *more)


def served(trace: str, parent: str = "b0") -> str:
    return line("coalmine-server", span(trace, "d0", parent))


def traces_of(folder: Path, *lines: str) -> Traces:
    file = folder / "traces-000001.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return read_traces([file])


def test_a_trace_is_whole_where_the_servers_span_hangs_below_the_routers_call(
    tmp_path: Path,
) -> None:
    found = traces_of(tmp_path, routed("t1"), served("t1"), routed("t2"), served("t3"))
    assert found.whole_traces() == ["t1"]


@pytest.mark.parametrize("parent", ["a0", "zz", ""])
def test_a_trace_is_not_whole_where_the_servers_span_hangs_elsewhere(
    tmp_path: Path, parent: str
) -> None:
    assert traces_of(tmp_path, routed("t1"), served("t1", parent)).whole_traces() == []


def test_mismatches_are_found_by_candidate(tmp_path: Path) -> None:
    found = traces_of(
        tmp_path,
        routed("t1", comparison("t1", "canary", "match"), comparison("t1", "broken", "mismatch")),
        routed("t2", comparison("t2", "broken", "mismatch")),
    )
    assert found.mismatches() == {"broken": ["t1", "t2"]}


def test_picked_traces_are_whole_few_and_none_comes_twice(tmp_path: Path) -> None:
    both = [comparison("t1", "canary", "mismatch"), comparison("t1", "broken", "mismatch")]
    lines = [
        routed("t1", *both),
        served("t1"),
        routed("t9", comparison("t9", "broken", "mismatch")),
    ]
    for trace in ("t2", "t3", "t4"):
        lines += [routed(trace, comparison(trace, "broken", "mismatch")), served(trace)]
    found = traces_of(tmp_path, *lines)
    assert pick(found, 2) == ["t1", "t2", "t3"]


def test_picked_traces_are_written_as_what_was_read(tmp_path: Path) -> None:
    found = traces_of(tmp_path, routed("t1"), served("t1"), routed("t2"))
    again = tmp_path / "again.jsonl"
    again.write_text("\n".join(found.lines_of(["t1"])) + "\n")
    assert len(again.read_text().splitlines()) == 1
    assert read_traces([again]) == Traces({"t1": found.by_id["t1"]})


def test_a_line_without_spans_of_a_resource_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no resourceSpans"):
        traces_of(tmp_path, "{}")
