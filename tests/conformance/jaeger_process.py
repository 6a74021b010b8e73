"""Jaeger itself, built from its Go module, with traces in memory; and what its page asks of it."""

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.doubles.jaeger import Search
from tests.doubles.split_route import closed_port
from tests.needs import GO_PROGRAMS

_READY_S: Final = 60.0
_CALL_S: Final = 30.0
_POLL_S: Final = 0.1
_LIMIT: Final = 1_500

needs_jaeger = pytest.mark.needs("jaeger")


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger: where spans go, and where its page asks."""

    process: subprocess.Popen[bytes]
    grpc: str
    http: str
    page: str
    # It refuses to look for more than it can hold.
    limit: int

    def found_by(self, search: Search) -> set[str]:
        """Return the ids of the traces that a search of the page finds."""
        asked = {
            "service": search.service,
            "operation": search.operation,
            "tags": json.dumps(dict(search.tags)) if search.tags else "",
            "minDuration": f"{search.min_ns // 10**6}ms" if search.min_ns else "",
            "limit": str(self.limit),
            **_ALL_TIMES,
        }
        given = {key: value for key, value in asked.items() if value}
        return {_whole(each["traceID"]) for each in self.ask("/api/traces", given)["data"]}

    def found_by_v3(self, search: Search) -> set[str]:
        """Return the same by the newer way, which takes no tags in this version."""
        return {span["traceId"] for span in self._spans_by_v3(search)}

    def warnings_by_v3(self) -> list[str]:
        """Return what the newer way warns of, which is that of the newer pages."""
        spans = [
            span
            for service in self.ask("/api/services")["data"]
            for span in self._spans_by_v3(Search(service))
        ]
        return [
            f"{span['name']}: {each['value']}"
            for span in spans
            for each in span.get("attributes", ())
            if "warnings" in each["key"]
        ]

    def _spans_by_v3(self, search: Search) -> list[Mapping[str, Any]]:
        asked = {
            "query.service_name": search.service,
            "query.operation_name": search.operation,
            "query.start_time_min": "2000-01-01T00:00:00Z",
            "query.start_time_max": "2100-01-01T00:00:00Z",
            "query.num_traces": str(self.limit),
        }
        try:
            result = self.ask("/api/v3/traces", asked)["result"]
        except urllib.error.HTTPError as error:
            if error.code == 404:  # so it says that there is none
                return []
            raise
        return [
            span
            for resource in result["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def spans(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the spans of all traces as the page gets them, by trace id; `service` added."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for service in self.ask("/api/services")["data"] or ():
            asked = {"service": service, "limit": str(self.limit), **_ALL_TIMES}
            for trace in self.ask("/api/traces", asked)["data"]:
                found[_whole(trace["traceID"])] = _spans_of(trace)
        return found

    def uploaded(self, *files: Path) -> dict[str, list[Mapping[str, Any]]]:
        """Return what the page shows of an uploaded file: it sends a file's lines as one object."""
        lines = [line for file in files for line in file.read_text().splitlines()]
        merged = [each for line in lines for each in json.loads(line)["resourceSpans"]]
        body = json.dumps({"resourceSpans": merged}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.page}/api/transform", body, headers)
        with urllib.request.urlopen(request, timeout=_CALL_S) as answer:
            return {_whole(each["traceID"]): _spans_of(each) for each in json.load(answer)["data"]}

    def ask(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON that it answers."""
        words = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.page}{path}{words}", timeout=_CALL_S) as answer:
            return json.load(answer)

    def wait_for(self, wanted: Callable[["Jaeger"], bool], timeout_s: float = 30.0) -> None:
        """Block until `wanted(jaeger)` holds."""
        ends_s = time.monotonic() + timeout_s
        while not wanted(self):
            assert time.monotonic() < ends_s, "Jaeger doesn't have it"
            time.sleep(_POLL_S)


# Microseconds: until the year 2096.
_ALL_TIMES: Final = {"start": "0", "end": str(4 * 10**15)}


def _whole(trace_id: str) -> str:
    """Return an id with the zeros that it begins with, which the older way leaves out."""
    return trace_id.zfill(32)


def warnings_of(spans: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what Jaeger warns of."""
    return [f"{each['operationName']}: {why}" for each in spans for why in each["warnings"] or ()]


def _spans_of(trace: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    processes = trace["processes"]
    return [
        {**span, "service": processes[span["processID"]]["serviceName"]} for span in trace["spans"]
    ]


@contextlib.contextmanager
def jaeger(folder: Path, *, max_traces: int = 100_000, skew: str = "0s") -> Iterator[Jaeger]:
    """Run Jaeger on loopback until the block ends."""
    grpc, http, page, page_grpc = (closed_port() for _ in range(4))
    config = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {
                "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
            },
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"here": {"memory": {"max_traces": max_traces}}}},
            "jaeger_query": {
                "storage": {"traces": "here"},
                "max_clock_skew_adjust": skew,
                "http": {"endpoint": page},
                "grpc": {"endpoint": page_grpc},
            },
        },
        "receivers": {
            "otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "here"}},
    }
    file, log = folder / "jaeger.yaml", folder / "jaeger.log"
    file.write_text(yaml.safe_dump(config))
    with log.open("wb") as written:
        command = [str(GO_PROGRAMS / "jaeger"), "--config", str(file)]
        # It would trace itself, to where spans go by default.
        quiet = {**os.environ, "OTEL_TRACES_SAMPLER": "always_off"}
        process = subprocess.Popen(command, stdout=written, stderr=written, env=quiet)
    try:
        there = Jaeger(
            process,
            grpc=f"http://{grpc}",
            http=f"http://{http}",
            page=f"http://{page}",
            limit=min(_LIMIT, max_traces),
        )
        yield _once_ready(there, log)
    finally:
        process.terminate()
        process.wait(_READY_S)


def _once_ready(started: Jaeger, log: Path) -> Jaeger:
    ends_s = time.monotonic() + _READY_S
    while True:
        assert started.process.poll() is None, log.read_text()
        assert time.monotonic() < ends_s, f"not ready after {_READY_S} s: {log.read_text()}"
        with contextlib.suppress(OSError):
            started.ask("/api/services")
            return started
        time.sleep(_POLL_S)
