"""Print a trace of a file as a tree, name by name: the one in docs/tracing.md is made by it.

    .venv/bin/python tools/trace_tree.py FILE [TRACE_ID]

FILE is what `coalmine traces --otlp FILE` writes; without an id, its first trace is printed.
"""

import sys
from pathlib import Path

from coalmine_client.cli.traces.traces_tree import branches
from coalmine_client.otlp_spans import Span, spans_of


def spans(file: Path, trace_id: str) -> list[Span]:
    """Return the spans of one trace."""
    found = [span for line in file.read_text().splitlines() for span in spans_of(line)]
    wanted = trace_id or found[0].trace_id
    return [span for span in found if span.trace_id == wanted]


def tree(trace: list[Span]) -> str:
    """Return a line for each span: its name below its parent's, and the service that made it."""
    rows = [(branch.lines + branch.span.name, branch.span.service) for branch in branches(trace)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}   {service}" for name, service in rows)


if __name__ == "__main__":
    print(tree(spans(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")))
