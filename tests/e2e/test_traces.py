"""The spans of real processes, as a collector receives them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coalmine.tensors import Array
from tests.doubles.oip_backend import request_body
from tests.doubles.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.doubles.processes import Started, started
from tests.doubles.router_setup import Caller, caller_of, configuration, router
from tests.e2e.conftest import Digits, server_arguments

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
    compared = only(spans, name="coalmine.compare")
    served, copied = (
        only(spans, service="coalmine-server", parent_id=call.span_id, kind="SERVER")
        for call in (primary, shadow)
    )
    assert routed.parent_id == CALLER_SPAN
    assert {span.parent_id for span in (primary, shadow, compared)} == {routed.span_id}
    assert {span.name for span in (routed, primary, shadow, served, copied)} == {METHOD}
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


def _servers(receiver: OtlpReceiver) -> list[ReceivedSpan]:
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
        if span.name == "coalmine.compare" and "coalmine.tipped" not in span.attributes
    }
    tipped = {span.trace_id for span in spans if "coalmine.tipped" in span.attributes}
    assert set(outcomes.values()) == {"mismatch"}
    kept = {int(trace_id[:8], 16) for trace_id in outcomes.keys() | tipped}
    assert differing <= kept
    assert len(kept) <= len(differing) + 1, "beside mismatches, who tipped the verdict"
    requests = (span for span in spans if span.name != "coalmine.verdict")
    assert {span.trace_id for span in requests} == set(outcomes) | tipped


_ID = "traceparent"


def _trace_id(number: int) -> str:
    """Return a traceparent whose trace id tells the image, with the flag not to sample."""
    return f"00-{number:08x}{'ab' * 12}-{CALLER_SPAN}-00"
