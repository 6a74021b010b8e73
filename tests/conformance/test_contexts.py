"""Callers under OpenTelemetry's gRPC instrumentations, in each language: whose trace a call is in.

The examples of clients/ call, and what Python has beside them: once, and then by a stream of three.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conformance.contexts_scene import Scene, scene_of
from tests.conformance.jaeger_process import Jaeger, jaeger, needs_jaeger, warnings_of
from tests.conformance.runners import CLIENTS
from tests.doubles.otlp_receiver import OtlpReceiver, ReceivedSpan

# On a new machine the examples are built in the first test of a language.
pytestmark = pytest.mark.timeout(600)

OTHERS = [pytest.param(each, marks=pytest.mark.needs(each)) for each in ("go", "java", "node")]
in_each_language = pytest.mark.parametrize("language", ["python", *OTHERS])

INFER = "inference.GRPCInferenceService/ModelInfer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"
TRACESTATE = "shop=basket-7,other=x"
BAGGAGE = "tenant=acme,basket=7"
ASKED_ON_A_STREAM = [f"coalmine-server: {STREAM}"] * 3
# Of each call and each message of a stream, the server has three spans. Of a stream, no copies.
TREE = {
    "caller: ask for a digit": ["asked"],
    f"caller: {INFER}": ["caller: ask for a digit"],
    f"caller: {STREAM}": ["caller: ask for a digit"],
    f"coalmine-router: {INFER}": [f"caller: {INFER}"],
    f"coalmine-router: {STREAM}": [f"caller: {STREAM}"],
    "coalmine-router: primary stable": [f"coalmine-router: {each}" for each in (INFER, STREAM)],
    "coalmine-router: shadow canary": [f"coalmine-router: {INFER}"],
    "coalmine-router: compare canary: match": [f"coalmine-router: {INFER}"],
    f"coalmine-server: {INFER}": [
        "coalmine-router: primary stable",
        "coalmine-router: shadow canary",
    ],
    f"coalmine-server: {STREAM}": ["coalmine-router: primary stable"] * 3,
    "coalmine-server: queue": [*[f"coalmine-server: {INFER}"] * 2, *ASKED_ON_A_STREAM],
    "coalmine-server: execute": [*[f"coalmine-server: {INFER}"] * 2, *ASKED_ON_A_STREAM],
}
SERVED = {
    **{name: above for name, above in TREE.items() if name.startswith("caller")},
    f"coalmine-server: {INFER}": [f"caller: {INFER}"],
    f"coalmine-server: {STREAM}": [f"caller: {STREAM}"] * 3,
    "coalmine-server: queue": [f"coalmine-server: {INFER}", *ASKED_ON_A_STREAM],
    "coalmine-server: execute": [f"coalmine-server: {INFER}", *ASKED_ON_A_STREAM],
}
KEPT = {
    f"coalmine-router: {INFER}": ["somebody"],
    "coalmine-router: primary stable": [f"coalmine-router: {INFER}"],
    "coalmine-router: shadow canary": [f"coalmine-router: {INFER}"],
    "coalmine-router: compare canary: mismatch": [f"coalmine-router: {INFER}"],
}


class Asked:
    """A request in which a caller calls: its own context, which the caller continues."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace_id = secrets.token_hex(16)
        self.span_id = secrets.token_hex(8)
        self.context = {
            "TRACEPARENT": f"00-{self.trace_id}-{self.span_id}-{'01' if sampled else '00'}",
            "TRACESTATE": TRACESTATE,
            "BAGGAGE": BAGGAGE,
        }


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def scene(
    repository: Path, receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with scene_of(repository, tmp_path_factory.mktemp("contexts"), receiver.endpoint) as running:
        yield running


@in_each_language
@pytest.mark.parametrize(("place", "tree"), [("routed", TREE), ("served", SERVED)])
def test_a_sampled_call_is_one_trace_from_whoever_asked_its_caller_down_to_the_server(
    language: str, place: str, tree: dict[str, list[str]], scene: Scene, receiver: OtlpReceiver
) -> None:
    asked = Asked()
    told = scene.ask(language, getattr(scene, place), **asked.context)

    assert told["trace"] == asked.trace_id
    trace = receiver.wait_for_trace(asked.trace_id, sum(map(len, tree.values())))
    assert tree_of(language, asked, trace) == tree
    assert [each for each in trace if each.status == "ERROR"] == []


@in_each_language
def test_tracestate_and_baggage_travel_on_with_the_call_and_with_its_copy(
    language: str, scene: Scene
) -> None:
    asked = Asked()
    scene.ask(language, scene.routed, "noted", **asked.context)

    for noted in scene.noting.of(asked.trace_id, 2):
        assert [value for key, value in noted if key == "tracestate"] == [TRACESTATE]
        # Baggage has no order.
        [baggage] = [value for key, value in noted if key == "baggage"]
        assert sorted(str(baggage).split(",")) == sorted(BAGGAGE.split(","))


@in_each_language
def test_of_unsampled_calls_mismatches_alone_are_kept_and_whole(
    language: str, scene: Scene, receiver: OtlpReceiver
) -> None:
    unkept, kept = Asked(sampled=False), Asked(sampled=False)
    scene.ask(language, scene.routed, **unkept.context)
    scene.ask(language, scene.routed, "differs", **kept.context)

    trace = receiver.wait_for_trace(kept.trace_id, len(KEPT))
    assert tree_of(language, kept, trace) == KEPT
    assert receiver.trace(unkept.trace_id) == []


def tree_of(language: str, asked: Asked, trace: Iterable[ReceivedSpan]) -> dict[str, list[str]]:
    """Return by service and name of each span those of what it hangs below."""
    names = {each.span_id: _name(language, each.service, each.name) for each in trace}
    names[asked.span_id] = "asked"
    found: dict[str, list[str]] = {}
    for span in trace:
        found.setdefault(names[span.span_id], []).append(names.get(span.parent_id, "somebody"))
    return {name: sorted(above) for name, above in found.items()}


def _name(language: str, service: str, name: str) -> str:
    """Return both, without how an instrumentation writes a method."""
    method = name.removeprefix("grpc.").removeprefix("/")
    return f"{'caller' if service == language else service}: {method}"


# ---------------------------------------------------------------- Jaeger


@pytest.fixture(scope="module")
def shown(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Scene, Jaeger]]:
    folder = tmp_path_factory.mktemp("shown")
    with jaeger(folder) as running, scene_of(repository, folder, running.grpc) as scene:
        yield scene, running


@needs_jaeger
@in_each_language
def test_a_caller_that_exports_to_jaeger_has_its_spans_in_the_same_whole_trace(
    language: str, shown: tuple[Scene, Jaeger]
) -> None:
    scene, page = shown
    trace_id = scene.ask(language, scene.routed)["trace"]

    count = sum(map(len, TREE.values()))
    page.wait_for(lambda it: len(it.spans().get(trace_id, ())) >= count)
    spans = page.spans()[trace_id]
    assert {each["service"] for each in spans} == {language, "coalmine-router", "coalmine-server"}
    known = {each["spanID"] for each in spans}
    above = [each["references"][0]["spanID"] for each in spans if each["references"]]
    assert (len(spans), len(above)) == (count, count - 1)
    assert known.issuperset(above)
    assert warnings_of(spans) == []


# ---------------------------------------------------------------- the READMEs


@pytest.mark.parametrize(
    ("language", "files"),
    [
        ("go", ("example/*.go",)),
        ("java", ("example/pom.xml", "example/src/**/*.java")),
        ("node", ("*.js",)),
    ],
)
def test_what_a_readme_says_of_traces_is_what_its_example_does(
    language: str, files: tuple[str, ...]
) -> None:
    text = (CLIENTS / language / "README.md").read_text()
    part = text.partition("\n## Traces\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(?:go|java|js|xml)\n(.*?)```", part, re.DOTALL)
    lines = [line.strip() for each in blocks for line in each.splitlines() if line.strip()]
    found = [file for each in files for file in (CLIENTS / language).glob(each)]
    code = "\n".join(each.read_text() for each in found)

    assert lines
    assert [each for each in lines if each not in code] == []
