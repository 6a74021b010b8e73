"""The spans of real processes, as a collector receives them."""

import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.tensors import Array
from coalmine_client.otlp_spans import Span, spans_of
from tests.doubles.oip_backend import request_body
from tests.doubles.otlp_receiver import OtlpReceiver, Received, ReceivedSpan
from tests.doubles.processes import Started, started
from tests.doubles.router_setup import PIXELS, Caller, caller_of, configuration, router
from tests.doubles.split_route import closed_port
from tests.e2e.conftest import Digits, server_arguments

ROOT = Path(__file__).parents[2]
METHOD = "inference.GRPCInferenceService/ModelInfer"
TRACE, CALLER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def traced(
    digits: Digits, folder: Path, receiver: OtlpReceiver, *, ratio: str, **route: object
) -> Iterator[Caller]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with started(*server_arguments(digits), folder=folder, environment=environment) as server:
        file = configuration(folder, server.address("grpc"), **route)
        with router(file, environment=environment) as running, caller_of(running) as caller:
            yield caller
            _stop(running)


def _stop(running: Started) -> None:
    """End the router, so that what it learnt last is exported."""
    assert running.stop() == 0


def image(pixels: Array, number: int) -> bytes:
    return request_body("digits", pixels=pixels[number : number + 1])


def only(spans: list[ReceivedSpan], **wanted: object) -> ReceivedSpan:
    found = [
        span
        for span in spans
        if all(
            getattr(span, key, None) == value or span.attributes.get(f"coalmine.{key}") == value
            for key, value in wanted.items()
        )
    ]
    assert len(found) == 1, f"{len(found)} spans with {wanted}"
    return found[0]


def assert_attributes(span: ReceivedSpan, expected: Mapping[str, object]) -> None:
    got = {key: span.attributes.get(key) for key in expected}
    assert got == expected


def test_one_request_is_one_tree_from_the_caller_to_the_comparison(
    digits: Digits, tmp_path: Path
) -> None:
    route = {"shadows": {"int8": 100}, "compare": {"outputs": {"logits": {"rule": "exact"}}}}
    with OtlpReceiver() as receiver:
        with traced(digits, tmp_path, receiver, ratio="1", **route) as caller:
            parent = (("traceparent", f"00-{TRACE}-{CALLER_SPAN}-01"),)
            caller.infer(image(digits.held_out.pixels, 0), metadata=parent)
        receiver.wait_for(lambda it: len(_servers(it)) == 2)
        spans = receiver.trace(TRACE)
    routed = only(spans, service="coalmine-router", kind="SERVER")
    primary = only(spans, kind="CLIENT", role="primary")
    shadow = only(spans, kind="CLIENT", role="shadow")
    compared = only(spans, kind="INTERNAL", service="coalmine-router")
    served, copied = (
        only(spans, service="coalmine-server", parent_id=call.span_id, kind="SERVER")
        for call in (primary, shadow)
    )
    assert routed.parent_id == CALLER_SPAN
    assert {span.parent_id for span in (primary, shadow, compared)} == {routed.span_id}
    assert {span.name for span in (routed, served, copied)} == {METHOD}
    assert [span.name for span in (primary, shadow, compared)] == [
        *("primary stable", "shadow int8", "compare int8: mismatch"),
    ]
    assert_attributes(
        routed,
        {
            "rpc.system.name": "grpc",
            "rpc.method": METHOD,
            "rpc.status_code": "OK",
            "coalmine.route": "digits",
            "coalmine.variant": "stable",
            "coalmine.assignment": "split",
            "coalmine.revision": 1,
            "feature_flag.key": "digits",
            "feature_flag.result.variant": "stable",
            "feature_flag.version": "1",
        },
    )
    assert_attributes(primary, {"coalmine.backend": "blue", "server.address": "127.0.0.1"})
    assert_attributes(
        served, {"coalmine.model": "digits", "coalmine.model.version": "1", "rpc.method": METHOD}
    )
    assert_attributes(copied, {"coalmine.model": "digits-int8", "coalmine.batch.size": 1})
    assert {each.name for each in served.events} >= {"queue", "compute"}
    inside = [span.name for span in spans if span.parent_id == served.span_id]
    assert sorted(inside) == ["execute", "queue"]
    assert compared.kind == "INTERNAL"
    assert_attributes(
        compared,
        {
            "coalmine.compare.outcome": "mismatch",
            "coalmine.compare.reference": "stable",
            "coalmine.compare.candidate": "int8",
            "coalmine.compare.kind": "value",
        },
    )
    assert isinstance(compared.attributes["coalmine.compare.max_abs_diff"], float)
    assert str(compared.attributes["coalmine.compare.diff_bucket"]).startswith("1e")
    [difference] = compared.events
    assert {"name", "kind", "index", "expected", "actual"} <= set(difference.attributes)
    assert (difference.attributes["name"], difference.attributes["kind"]) == ("logits", "value")


def _servers(receiver: Received) -> list[ReceivedSpan]:
    return [
        span
        for span in receiver.spans
        if span.service == "coalmine-server" and span.kind == "SERVER"
    ]


def test_at_ratio_0_every_mismatch_is_traced_and_no_match(digits: Digits, tmp_path: Path) -> None:
    pixels = digits.held_out.pixels
    stable, int8 = (digits.held_out.answers[name].label for name in ("stable", "int8"))
    differing = set((stable != int8).nonzero()[0].tolist())
    asked = sorted(differing | set(range(100)))
    route = {
        "shadows": {"int8": 100},
        "compare": {"outputs": {"logits": {"rule": "ignore"}, "label": {"rule": "exact"}}},
    }
    assert differing, "the shadow must differ somewhere for this test to mean anything"
    with OtlpReceiver() as receiver:
        with traced(digits, tmp_path, receiver, ratio="0", **route) as caller:
            for number in asked:
                caller.infer(image(pixels, number), metadata=((_ID, _trace_id(number)),))
        spans = receiver.spans
    outcomes = {
        span.trace_id: span.attributes["coalmine.compare.outcome"]
        for span in spans
        if "coalmine.compare.outcome" in span.attributes
        and "coalmine.tipped" not in span.attributes
    }
    tipped = {span.trace_id for span in spans if "coalmine.tipped" in span.attributes}
    assert set(outcomes.values()) == {"mismatch"}
    kept = {int(trace_id[:8], 16) for trace_id in outcomes.keys() | tipped}
    assert differing <= kept
    assert len(kept) <= len(differing) + 1, "beside mismatches, who tipped the verdict"
    requests = (span for span in spans if "coalmine.verdict" not in span.attributes)
    assert {span.trace_id for span in requests} == set(outcomes) | tipped


_ID = "traceparent"


def _trace_id(number: int) -> str:
    """Return a traceparent whose trace id tells the image, with the flag not to sample."""
    return f"00-{number:08x}{'ab' * 12}-{CALLER_SPAN}-00"


# ---------------------------------------------------------------- files, and what is read of them

# In it everything there is happens to one request: as docs/tracing.md shows it.
EVERYTHING: Mapping[str, Any] = {
    "weights": {"stable": 90, "canary": 10},
    "shadows": {"int8": 100},
    "audit": 100,
    "noise": 100,
    "compare": {"outputs": {"logits": {"rule": "exact"}}},
}


@dataclass(frozen=True)
class Left:
    """The folders of trace files that a router and a server left."""

    folders: tuple[Path, Path]

    def whole(self, file: Path) -> list[Span]:
        """Return the spans of the newest mismatch, as `coalmine traces --otlp` writes it."""
        program = [sys.executable, "-c", "from coalmine_client.cli import main; main()"]
        words = ["traces", *self.folders, "--mismatches", "--limit", "1", "--otlp", file]
        subprocess.run([*program, *map(str, words)], check=True, timeout=60)
        return [span for line in file.read_text().splitlines() for span in spans_of(line)]


@pytest.fixture(scope="module")
def left(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("left")
    arguments = [*server_arguments(digits), "--traces", str(folder / "server-traces")]
    with started(*arguments, folder=folder) as server:
        file = configuration(folder, server.address("grpc"), **EVERYTHING)
        with router(file) as running, caller_of(running) as caller:
            while caller.infer(image(digits.held_out.pixels, 0))[1] != "stable":
                """Ask again: the newest trace is to be one that stable answered."""
            _stop(running)
    return Left((folder / "state" / "traces", folder / "server-traces"))


def test_the_tree_of_the_document_is_that_of_a_real_request(left: Left, tmp_path: Path) -> None:
    file = tmp_path / "whole.jsonl"
    left.whole(file)
    script = ROOT / "tools" / "trace_tree.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(file)], capture_output=True, text=True, check=True
    )
    document = (ROOT / "docs" / "tracing.md").read_text()
    (shown,) = re.findall(r"<!-- tree -->\n```text\n(.*?)```", document, re.DOTALL)
    assert alike(ran.stdout) == alike(shown), ran.stdout


def alike(tree: str) -> list[str]:
    """Return a tree's lines in an order of their own: copies are made at one time."""
    return sorted(line.replace("├", "└").replace("│", " ") for line in tree.splitlines())


def test_no_span_ends_as_it_begins_and_no_siblings_have_one_name(
    left: Left, tmp_path: Path
) -> None:
    spans = left.whole(tmp_path / "whole.jsonl")
    assert min(span.ended_ns - span.started_ns for span in spans) > 0
    names = Counter((span.parent_id, span.name) for span in spans)
    assert set(names.values()) == {1}


def test_all_spans_of_a_process_name_its_host_and_version(left: Left, tmp_path: Path) -> None:
    said = {
        str(each["key"]): each["value"]
        for span in left.whole(tmp_path / "whole.jsonl")
        for each in span.resource["resource"]["attributes"]
    }
    assert {"host.name", "service.version", "process.pid"} <= set(said)


# ---------------------------------------------------------------- what has no route


def test_requests_without_a_route_leave_one_trace_a_second_and_are_counted(
    digits: Digits, tmp_path: Path
) -> None:
    with OtlpReceiver() as receiver:
        with traced(digits, tmp_path, receiver, ratio="0") as caller:
            began_s = time.monotonic()
            codes = Counter(refused(caller, b"\x0a\xff") for _ in range(25))
            codes += Counter(refused(caller, request_body("nope", x=PIXELS)) for _ in range(25))
            took_s = time.monotonic() - began_s
        spans = [each for each in receiver.spans if each.attributes.get("coalmine.refused")]
    assert codes == {"INVALID_ARGUMENT": 25, "NOT_FOUND": 25}
    assert 1 <= len(spans) <= 1 + took_s + 1
    assert {(each.name, each.status, each.attributes["coalmine.failed"]) for each in spans} == {
        (METHOD, "ERROR", True)
    }


def test_what_a_hanging_collector_never_took_is_said_within_a_short_grace_period(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        file = configuration(tmp_path, f"127.0.0.1:{closed_port()}")
        with router(file, environment=environment) as running, caller_of(running) as caller:
            assert refused(caller, request_body("nope", x=PIXELS)) == "NOT_FOUND"
            time.sleep(2)  # its report arrives, and is exported
            assert running.stop() == 0
    said = running.log.read_text()
    assert ("spans_given_up" in said, "process_killed" in said) == (True, False)


def refused(caller: Caller, body: bytes) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        caller.infer(body)
    return str(raised.value.code().name)
