"""What Jaeger itself makes of our spans: the searches of docs/tracing.md, and what is shown."""

import asyncio
import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from coalmine_demo import demo_traces
from tests.conformance import jaeger_scene as scenes
from tests.conformance.jaeger_process import Jaeger, jaeger, needs_jaeger, warnings_of
from tests.doubles import exported_traces
from tests.doubles import jaeger as double
from tests.doubles.oip_backend import OipBackend
from tests.doubles.processes import Started
from tests.doubles.router_setup import Caller, caller_of
from tests.doubles.router_setup import configuration as plain_configuration
from tests.doubles.router_setup import router as router_of
from tests.doubles.server_process import server_of
from tests.doubles.split_route import closed_port

pytestmark = needs_jaeger

ROOT = Path(__file__).parents[2]
SEARCHES = double.searches_of((ROOT / "docs" / "tracing.md").read_text())
METHOD = "inference.GRPCInferenceService/ModelInfer"

OF_CANARY = {
    *("scores by 0.2", "logits by 5e-3", "logits by 2e-4", "nan", "slow mismatch"),
    *("acme's mismatch", "audit", "beyond noise", "noise too", "judged"),
}
REFUSED = {"no route", "in flight"}
# By the heading of each search, what happened to the requests that it finds.
FINDS: Mapping[str, set[str]] = {
    "All mismatches of canary": OF_CANARY,
    "Mismatches of canary on output scores": {"scores by 0.2"},
    "Mismatches of canary larger than 1e-3": OF_CANARY - {"logits by 2e-4", "nan"},
    "Mismatches of canary between 1e-3 and 1e-2": {"logits by 5e-3"},
    "Mismatches of any candidate larger than 1e-3": (OF_CANARY | {"of int8"})
    - {"logits by 2e-4", "nan"},
    "NaN on one side only": {"nan"},
    "Mismatches of canary where the reference agrees with itself": {"beyond noise"},
    "What canary and stable said to one request": {"audit"},
    "Requests in which canary differed and that took 200 ms or more": {"slow mismatch"},
    "Copies for canary that failed": {"shadow failed"},
    "Calls to canary that failed": {"fell back"},
    "Requests that fell back to stable": {"fell back"},
    "Requests that fell back from canary": {"fell back"},
    "Requests that were tried twice at stable": {"tried twice"},
    "Requests the router turned away": REFUSED,
    "Errors that the router made, and no backend": {*REFUSED, "absent"},
    "Requests turned away because too many were in flight": {"in flight"},
    "Requests that failed": {"failed", "absent"},
    "Slow requests": {"slow", "slow mismatch"},
    "Verdicts that became a failure": {"verdict"},
    "Requests that tipped a verdict": {"judged"},
    "All requests of one tenant": {"of acme", "acme's mismatch"},
    "Mismatches of one tenant": {"acme's mismatch"},
    "Comparisons of one model version": {"version 3"},
    "Requests that one model version answered": {"served"},
    "A request by its caller's id": {"order"},
    "A request by its caller's id, in the server": {"served"},
}

Spans = Mapping[str, list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Scene:
    """A Jaeger, what happened in each trace, and the files that were written beside."""

    jaeger: Jaeger
    names: Mapping[str, str]
    folder: Path

    @property
    def files(self) -> dict[str, list[Path]]:
        """The files of router and server."""
        folders = {"router": "state/traces", "server": "server-traces"}
        return {
            name: sorted((self.folder / each).rglob("*.jsonl")) for name, each in folders.items()
        }

    @property
    def all_files(self) -> list[Path]:
        """Those of who asked, too."""
        return [self.folder / "callers.jsonl", *self.files["router"], *self.files["server"]]


@pytest.fixture(scope="module")
def scene(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("jaeger")
    models = two_versions(repository, folder / "models")
    with jaeger(folder) as running:
        names = asyncio.run(provoked(folder, models, running))
        expected = len(names) + 1
        running.wait_for(lambda it: len(it.spans()) >= expected)
        yield Scene(running, names, folder)


def two_versions(repository: Path, models: Path) -> Path:
    """Write digits as versions 2 and 3."""
    digits = models / "digits"
    config = yaml.safe_load((repository / "digits" / "config.yaml").read_text())
    for number in ("2", "3"):
        shutil.copytree(repository / "digits" / "1", digits / number)
    digest = hashlib.sha256((digits / "3" / "model.pt").read_bytes()).hexdigest()
    config["sha256"] = dict.fromkeys(("2", "3"), digest)
    config.pop("labels", None)
    (digits / "config.yaml").write_text(yaml.safe_dump(config))
    return models


async def provoked(folder: Path, models: Path, running: Jaeger) -> dict[str, str]:
    """Let everything happen, the router exporting by HTTP and the server by gRPC."""
    common = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_TRACES_EXPORTER": "otlp,otlp_json_file"}
    by_http = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": running.http,
    }
    stable = scenes.Stable()
    async with AsyncExitStack() as stack:
        backends = [
            await stack.enter_async_context(OipBackend(script, health=True))
            for script in (stable, scenes.canary, scenes.int8, stable, stable)
        ]
        first, canary, int8, *two = (each.address for each in backends)
        with server_of(
            *(models, folder, "--traces", folder / "server-traces"),
            environment={**common, "OTEL_EXPORTER_OTLP_ENDPOINT": running.grpc},
        ) as server:
            file = scenes.configuration(
                folder,
                stable=[first],
                canary=[canary],
                int8=[int8],
                two=two,
                served=[server.address("grpc")],
                absent=[closed_port()],
            )
            async with (
                routing(file, {**common, **by_http}) as router,
                grpc.aio.insecure_channel(router.address("data")) as channel,
            ):
                asked = scenes.Provoked(channel)
                await asked.everything()
            send_json(running, asked.callers())
            (folder / "callers.jsonl").write_text(f"{asked.callers()}\n")
    return asked.names


@contextlib.asynccontextmanager
async def routing(file: Path, environment: Mapping[str, str]) -> AsyncIterator[Started]:
    """Run a router whose backends live in this loop, and end it in order."""
    router = router_of(file, environment=environment)
    running = await asyncio.to_thread(router.__enter__)
    try:
        yield running
        assert await asyncio.to_thread(running.stop) == 0
    finally:
        await asyncio.to_thread(router.__exit__, None, None, None)


# ---------------------------------------------------------------- the searches


def test_every_search_of_the_document_is_tried() -> None:
    assert set(SEARCHES) == set(FINDS)


@pytest.mark.parametrize("heading", FINDS)
def test_a_search_finds_exactly_what_was_provoked(heading: str, scene: Scene) -> None:
    search = SEARCHES[heading]
    ids = scene.jaeger.found_by(search)
    found = {scene.names.get(each, "verdict") for each in ids}
    assert found == FINDS[heading]
    if heading != "Requests that tipped a verdict":
        wanted = [each for each, name in scene.names.items() if name in FINDS[heading]]
        assert len(ids) == (len(wanted) or 1), "each of them, not some"
    if not (search.tags or search.min_ns):
        assert scene.jaeger.found_by_v3(search) == ids


def test_the_verdict_leads_to_the_request_that_tipped_it(scene: Scene) -> None:
    (tipped,) = scene.jaeger.found_by(SEARCHES["Requests that tipped a verdict"])
    (verdict,) = scene.jaeger.found_by(SEARCHES["Verdicts that became a failure"])
    (span,) = scene.jaeger.spans()[verdict]
    assert [(each["refType"], each["traceID"]) for each in span["references"]] == [
        ("FOLLOWS_FROM", tipped)
    ]


def test_the_menu_of_operations_has_a_name_for_everything(scene: Scene) -> None:
    menu = scene.jaeger.ask("/api/services/coalmine-router/operations")["data"]
    assert set(menu) == {
        METHOD,
        *("primary stable", "primary canary", "primary absent", "fallback stable", "retry stable"),
        *("shadow canary", "shadow int8", "audit stable", "noise stable"),
        *("compare canary: match", "compare canary: mismatch", "compare canary: error"),
        *("compare int8: match", "compare int8: mismatch"),
        *("compare stable: match", "compare stable: mismatch"),
        "verdict canary: fail",
    }


# ---------------------------------------------------------------- what the page shows


def test_no_span_has_a_warning_and_no_siblings_have_one_name(scene: Scene) -> None:
    traces = scene.jaeger.spans()
    assert [why for spans in traces.values() for why in warnings_of(spans)] == []
    assert scene.jaeger.warnings_by_v3() == []
    for spans in traces.values():
        siblings = Counter((parent_of(each), each["operationName"]) for each in spans)
        assert set(siblings.values()) == {1}


def test_a_warning_would_be_seen(tmp_path: Path) -> None:
    """What the test above would find, of spans of no host, the second after its parent's end."""
    now_ns = time.time_ns()
    times = [(now_ns, now_ns + 1_000_000), (now_ns + 2_000_000, now_ns + 2_000_000)]
    spans = [
        {
            "traceId": "c0a1" * 8,
            "spanId": f"{at + 1:016x}",
            "parentSpanId": f"{at:016x}" if at else "",
            "name": f"span {at}",
            "kind": 1,
            "startTimeUnixNano": str(began),
            "endTimeUnixNano": str(ended),
        }
        for at, (began, ended) in enumerate(times)
    ]
    named = [{"key": "service.name", "value": {"stringValue": "hostless"}}]
    group = {"resource": {"attributes": named}, "scopeSpans": [{"scope": {}, "spans": spans}]}
    with jaeger(tmp_path) as odd:
        send_json(odd, json.dumps({"resourceSpans": [group]}))
        odd.wait_for(lambda it: len(it.spans()) == 1)
        (found,) = odd.spans().values()
        assert any("clock skew" in each for each in warnings_of(found))
        assert any("clock skew" in each for each in odd.warnings_by_v3())


def parent_of(span: Mapping[str, Any]) -> str:
    refs = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
    return str(refs[0]) if refs else ""


def test_traces_by_http_from_the_router_and_by_grpc_from_the_server_are_whole(
    scene: Scene,
) -> None:
    traces = scene.jaeger.spans()
    served = [each for each, name in scene.names.items() if name in {"served", "other version"}]
    assert len(served) > 100
    for trace_id in served:
        tree = {
            (each["service"], each["operationName"]): (each["spanID"], parent_of(each))
            for each in traces[trace_id]
        }
        request = tree["coalmine-router", METHOD]
        call = tree["coalmine-router", "primary stable"]
        answered = tree["coalmine-server", METHOD]
        assert (call[1], answered[1]) == (request[0], call[0])
        assert tree["coalmine-server", "execute"][1] == answered[0]


def test_the_graph_goes_from_the_router_to_the_server(scene: Scene) -> None:
    now_ms = str(int(time.time() * 1_000))
    found = scene.jaeger.ask("/api/dependencies", {"endTs": now_ms, "lookback": "3600000"})
    served = [each for each in scene.names.values() if each in {"served", "other version"}]
    calls = {(each["parent"], each["child"]): each["callCount"] for each in found["data"]}
    calls = {ends: count for ends, count in calls.items() if ends[0] != ends[1]}
    assert calls == {
        ("caller", "coalmine-router"): len(scene.names),
        ("coalmine-router", "coalmine-server"): len(served),
    }


def test_where_clocks_may_differ_by_a_second_no_span_of_this_machine_moves(
    scene: Scene, tmp_path: Path
) -> None:
    with jaeger(tmp_path, skew="1s") as adjusting:
        for file in scene.all_files:
            for line in file.read_text().splitlines():
                send_json(adjusting, line)
        adjusting.wait_for(lambda it: len(it.spans()) >= len(scene.names) + 1)
        moved, still = adjusting.spans(), scene.jaeger.spans()
    assert [why for spans in moved.values() for why in warnings_of(spans)] == []
    assert starts(moved) == starts(still)


def send_json(to: Jaeger, line: str) -> None:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{to.http}/v1/traces", line.encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def starts(traces: Spans) -> dict[tuple[str, str], int]:
    return {
        (trace_id, each["spanID"]): each["startTime"]
        for trace_id, spans in traces.items()
        for each in spans
    }


# ---------------------------------------------------------------- Upload


def test_files_are_shown_and_whole_ones_are_those_that_were_exported(
    scene: Scene, tmp_path: Path
) -> None:
    exported = scene.jaeger.spans()
    routers, servers = (scene.jaeger.uploaded(*scene.files[each]) for each in ("router", "server"))
    assert routers.keys() == exported.keys()
    assert servers.keys() < exported.keys()
    assert not [each for spans in routers.values() for each in spans if "server" in each["service"]]
    whole = tmp_path / "whole.jsonl"
    program = [sys.executable, "-c", "from coalmine_client.cli import main; main()"]
    words = ["traces", *map(str, scene.all_files), "--limit", "1000", "--otlp", str(whole)]
    subprocess.run([*program, *words], check=True, timeout=60)
    assert starts(scene.jaeger.uploaded(whole)) == starts(exported)


def test_the_file_that_the_demo_writes_is_shown_whole(scene: Scene, tmp_path: Path) -> None:
    read = demo_traces.read_traces(scene.all_files)
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(f"{line}\n" for line in read.lines_of(read.by_id)))
    assert starts(scene.jaeger.uploaded(file)) == starts(scene.jaeger.spans())


# ---------------------------------------------------------------- the double


def test_the_double_finds_what_jaeger_finds(tmp_path: Path) -> None:
    """So its tests say as much where there is no Go."""
    exported_traces.export(tmp_path / "told")
    files = sorted((tmp_path / "told").rglob("traces-*.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    with jaeger(tmp_path) as real:
        for line in lines:
            send_json(real, line)
        wanted = {span["traceId"] for span in spans_in(lines)}
        real.wait_for(lambda it: it.spans().keys() >= wanted)
        for heading, search in SEARCHES.items():
            assert double.found_by(search, lines) == real.found_by(search), heading
        loose = double.Search("coalmine-router", tags={"name": "scores", "kind": "nan"})
        assert double.found_by(loose, lines) == real.found_by(loose) != set()


def spans_in(lines: list[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        for group in json.loads(line)["resourceSpans"]:
            for scope in group["scopeSpans"]:
                yield from scope["spans"]


# ---------------------------------------------------------------- slow, gone, full


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_jaeger_that_hangs_or_dies_costs_no_answer_and_is_told(
    protocol: str, repository: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(repository / "digits", models / "digits")
    with jaeger(tmp_path) as running, server_of(models, tmp_path) as server:
        said = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": running.grpc if protocol == "grpc" else running.http,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        file = plain_configuration(tmp_path, server.address("grpc"))
        with router_of(file, environment=said) as router, caller_of(router) as caller:
            answered(caller)
            running.wait_for(lambda it: len(it.spans()) >= 30)
            running.process.send_signal(signal.SIGSTOP)
            answered(caller)
            running.process.send_signal(signal.SIGCONT)
            running.process.kill()
            running.process.wait(10)
            answered(caller)
            dropped = 'coalmine_router_spans_total{result="dropped_export_failed"} '
            ends_s = time.monotonic() + 30
            while f"{dropped}0.0" in (page := router.page()) or dropped not in page:
                assert time.monotonic() < ends_s, page
                time.sleep(0.1)
            assert router.stop() == 0
            log = router.log.read_text()
    assert "spans_not_exported" in log
    assert "Traceback" not in log


def test_a_jaeger_that_is_full_keeps_the_newest_traces_and_costs_no_answer(
    repository: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(repository / "digits", models / "digits")
    with jaeger(tmp_path, max_traces=10) as running, server_of(models, tmp_path) as server:
        said = {"OTEL_EXPORTER_OTLP_ENDPOINT": running.grpc, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        file = plain_configuration(tmp_path, server.address("grpc"))
        with router_of(file, environment=said) as router, caller_of(router) as caller:
            answered(caller)
            assert router.stop() == 0
            assert "spans_not_exported" not in router.log.read_text()
        running.wait_for(lambda it: len(it.spans()) == 10)


def answered(caller: Caller) -> None:
    began_s = time.monotonic()
    assert caller.variants(30) == {"stable": 30}
    assert time.monotonic() - began_s < 10
