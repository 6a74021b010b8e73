"""Jaeger's search, over OTLP JSON: which traces a search of its page finds.

A trace is found where one of its spans, of that service and operation and at least as long, has all
the tags: among its attributes, its resource's, or those of any of its events, each equal as text.
`error` and `span.kind` are the span's own. So in Jaeger's memory store, the strictest there is
(Cassandra and Badger also find tags that lie on several spans of a trace).
Source: https://github.com/jaegertracing/jaeger, internal/storage/v2/memory/tenant.go, validSpan.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_KINDS = {1: "internal", 2: "server", 3: "client"}
_ERROR = 2
_FIELD = re.compile(r"^(Service|Operation|Tags|Min Duration)\s+(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Search:
    """What is typed into the page; `tags` as logfmt, joined by AND."""

    service: str
    operation: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    min_ns: int = 0


def searches_of(document: str) -> dict[str, Search]:
    """Return the searches of docs/tracing.md by the headings above them."""
    found = {}
    for section in re.split(r"^### ", document, flags=re.MULTILINE)[1:]:
        heading, _, rest = section.partition("\n")
        for block in re.findall(r"```text\n(Service.*?)```", rest, re.DOTALL):
            assert heading not in found, f"two searches below '{heading}'"
            found[heading] = read(block)
    return found


def read(text: str) -> Search:
    """Return the search of a block with a line for each field of the page that is filled in."""
    found = _FIELD.findall(text)
    assert len(found) == len(text.strip().splitlines()), text
    fields = dict(found)
    return Search(
        fields["Service"],
        fields.get("Operation", ""),
        logfmt(fields.get("Tags", "")),
        int(fields.get("Min Duration", "0ms").removesuffix("ms")) * 10**6,
    )


def logfmt(text: str) -> dict[str, str]:
    found = re.findall(r'([^\s="]+)=(?:"([^"]*)"|([^\s="]+))(?=\s|$)', text)
    tags = {key: quoted or plain for key, quoted, plain in found}
    assert len(tags) == text.count("="), f"not logfmt: {text}"
    return tags


def found_by(search: Search, lines: Iterable[str]) -> set[str]:
    """Return the ids of the traces that it finds."""
    return {span["traceId"] for resource, span in _spans(lines) if _fits(search, resource, span)}


def attribute_names(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what an attribute stands on and its name: a span by its name, or an event by its."""
    for _, span in _spans(lines):
        yield from ((span["name"], name) for name in _tags(span))
        for event in span.get("events", ()):
            yield from ((event["name"], name) for name in _tags(event))


def _spans(lines: Iterable[str]) -> Iterator[tuple[dict[str, str], Any]]:
    for line in lines:
        for group in json.loads(line)["resourceSpans"]:
            for scope in group["scopeSpans"]:
                for span in scope["spans"]:
                    yield _tags(group["resource"]), span


def _fits(search: Search, resource: Mapping[str, str], span: Any) -> bool:
    took_ns = int(span.get("endTimeUnixNano", 0)) - int(span.get("startTimeUnixNano", 0))
    if resource["service.name"] != search.service or took_ns < search.min_ns:
        return False
    if search.operation not in {"", span["name"]}:
        return False
    holders = [_own(span) | _tags(span), resource, *map(_tags, span.get("events", ()))]
    return all(
        any(holder.get(key) == value for holder in holders) for key, value in search.tags.items()
    )


def _own(span: Any) -> dict[str, str]:
    failed = span["status"].get("code") == _ERROR
    return {"span.kind": _KINDS[span["kind"]], **({"error": "true"} if failed else {})}


def _tags(holder: Any) -> dict[str, str]:
    return {each["key"]: _text(each["value"]) for each in holder.get("attributes", ())}


def _text(value: dict[str, Any]) -> str:
    (held,) = value.values()
    if isinstance(held, bool):
        return str(held).lower()
    return f"{held:g}" if isinstance(held, float) else str(held)
