"""Callers under OpenTelemetry's gRPC instrumentation: their context through router and server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import format_trace_id

from tests.doubles.oip_backend import request_body
from tests.doubles.otlp_receiver import OtlpReceiver, Received, ReceivedSpan
from tests.doubles.processes import started
from tests.doubles.router_setup import PIXELS, configuration, router
from tests.e2e.conftest import Digits, server_arguments

METHOD = "inference.GRPCInferenceService/ModelInfer"
Call = Callable[..., bytes]

# Only labels are compared: most images match, and those that int8 reads otherwise don't.
ROUTE: dict[str, Any] = {
    "shadows": {"int8": 100},
    "compare": {"outputs": {"logits": {"rule": "ignore"}, "label": {"rule": "exact"}}},
}


@dataclass
class Scene:
    """A router before a server, both exporting to `receiver`; the numbers of two images."""

    receiver: OtlpReceiver
    routed: str
    served: str
    bodies: dict[str, bytes]

    @contextmanager
    def service(self, name: str, sampler: Sampler, address: str) -> Iterator["Service"]:
        """Yield a caller that is traced by OpenTelemetry."""
        provider = TracerProvider(sampler=sampler, resource=Resource({"service.name": name}))
        exporter = OTLPSpanExporter(endpoint=self.receiver.endpoint, insecure=True)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as channel:
            traced = intercept_channel(channel, client_interceptor(provider))  # type: ignore[no-untyped-call]  # no types in the library
            yield Service(traced.unary_unary(f"/{METHOD}"), provider)
        provider.shutdown()


class Service:
    """A service of somebody's, in which each call is made within a span of its own."""

    def __init__(self, call: Call, provider: TracerProvider) -> None:
        self._call = call
        self._tracer = provider.get_tracer("caller")

    def ask(self, body: bytes) -> str:
        """Return the id of the trace in which it asked."""
        with self._tracer.start_as_current_span("checkout") as span:
            self._call(body, timeout=20)
        return format_trace_id(span.get_span_context().trace_id)


@pytest.fixture(scope="module")
def scene(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("contexts")
    labels = [digits.held_out.answers[name].label for name in ("stable", "int8")]
    differing = int((labels[0] != labels[1]).nonzero()[0][0])
    matching = int((labels[0] == labels[1]).nonzero()[0][0])
    images = {"match": matching, "mismatch": differing}
    pixels = digits.held_out.pixels
    with OtlpReceiver() as receiver:
        exporting = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        arguments = server_arguments(digits)
        with started(*arguments, folder=folder, environment=exporting) as server:
            file = configuration(folder, server.address("grpc"), **ROUTE)
            with router(file, environment=exporting) as running:
                yield Scene(
                    receiver,
                    running.address("data"),
                    server.address("grpc"),
                    {
                        name: request_body("digits", pixels=pixels[number : number + 1])
                        for name, number in images.items()
                    },
                )


def parents(trace: list[ReceivedSpan]) -> dict[str, list[str]]:
    """Return by service and name of each span the service and name of what it hangs below."""
    by_id = {span.span_id: span for span in trace}
    found: dict[str, list[str]] = {}
    for span in trace:
        above = by_id.get(span.parent_id)
        names = found.setdefault(f"{span.service}: {span.name}", [])
        names.append(f"{above.service}: {above.name}" if above else span.parent_id)
    return {name: sorted(above) for name, above in found.items()}


def test_every_request_of_a_traced_caller_is_one_whole_tree(scene: Scene) -> None:
    with scene.service("shop", ALWAYS_ON, scene.routed) as shop:
        ids = [shop.ask(scene.bodies["match"]) for _ in range(20)]
    for trace_id in ids:
        trace = scene.receiver.wait_for_trace(trace_id, 12)
        assert parents(trace) == {
            "shop: checkout": [""],
            f"shop: /{METHOD}": ["shop: checkout"],
            f"coalmine-router: {METHOD}": [f"shop: /{METHOD}"],
            "coalmine-router: primary stable": [f"coalmine-router: {METHOD}"],
            "coalmine-router: shadow int8": [f"coalmine-router: {METHOD}"],
            "coalmine-router: compare int8: match": [f"coalmine-router: {METHOD}"],
            f"coalmine-server: {METHOD}": [
                "coalmine-router: primary stable",
                "coalmine-router: shadow int8",
            ],
            "coalmine-server: queue": [f"coalmine-server: {METHOD}"] * 2,
            "coalmine-server: execute": [f"coalmine-server: {METHOD}"] * 2,
        }


def test_a_traced_caller_of_the_server_itself_has_one_tree_too(scene: Scene) -> None:
    with scene.service("shop", ALWAYS_ON, scene.served) as shop:
        trace = scene.receiver.wait_for_trace(shop.ask(scene.bodies["match"]), 5)
    assert parents(trace)[f"coalmine-server: {METHOD}"] == [f"shop: /{METHOD}"]


def test_of_callers_that_sample_nothing_mismatches_alone_are_kept_and_whole(scene: Scene) -> None:
    with scene.service("shop", ALWAYS_OFF, scene.routed) as shop:
        unkept = [shop.ask(scene.bodies["match"]) for _ in range(10)]
        kept = [shop.ask(scene.bodies["mismatch"]) for _ in range(3)]
    traces = [scene.receiver.wait_for_trace(trace_id, 4) for trace_id in kept]
    for trace in traces:
        assert {(span.service, span.name) for span in trace} == {
            ("coalmine-router", METHOD),
            ("coalmine-router", "primary stable"),
            ("coalmine-router", "shadow int8"),
            ("coalmine-router", "compare int8: mismatch"),
        }
    # A request that tipped a verdict is kept as well: with one candidate, one at most.
    seen = [trace_id for trace_id in unkept if scene.receiver.trace(trace_id)]
    tipped = {each.trace_id for each in scene.receiver.having("coalmine.tipped")}
    assert set(seen) <= tipped


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
@pytest.mark.parametrize("place", ["routed", "served"])
def test_a_malformed_context_begins_a_new_trace_without_an_error(
    scene: Scene, header: str, place: str
) -> None:
    request_id = f"{place} {header}"
    service = {"routed": "coalmine-router", "served": "coalmine-server"}[place]
    body = request_body("digits", request_id=request_id, pixels=PIXELS)
    with grpc.insecure_channel(getattr(scene, place)) as channel:
        call: Call = channel.unary_unary(f"/{METHOD}")
        call(body, timeout=20, metadata=(("traceparent", header), ("tracestate", "a=1,,=x")))

    def own(receiver: Received) -> list[ReceivedSpan]:
        return [
            span
            for span in receiver.having("coalmine.request.id")
            if span.attributes["coalmine.request.id"] == request_id
        ]

    scene.receiver.wait_for(lambda it: any(span.service == service for span in own(it)))
    found = own(scene.receiver)
    assert [span.service for span in found if not span.parent_id] == [service]
    assert len({span.trace_id for span in found}) == 1
