"""Asks for a digit, once and by a stream, under OpenTelemetry's instrumentation of grpcio.

`python -m tests.conformance.callers.traced ADDRESS MODEL` does what the examples of clients/ do,
and prints the trace that it was in.
"""

import json
import os
import sys

import grpc
import numpy as np
from opentelemetry import context, propagate
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import format_trace_id

from coalmine.inference import inference_pb2 as pb
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.doubles.oip_backend import request_body


def main(address: str, model: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    context.attach(propagate.extract({key.lower(): value for key, value in os.environ.items()}))
    request = pb.ModelInferRequest.FromString(
        request_body(model, pixels=np.ones((1, 64), np.float32))
    )
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(intercept_channel(channel, client_interceptor(provider)))  # type: ignore[no-untyped-call]  # no types in the library
        tracer = provider.get_tracer("example")
        with tracer.start_as_current_span("ask for a digit") as span:
            stub.ModelInfer(request, timeout=20)
            list(stub.ModelStreamInfer(iter([request] * 3), timeout=20))
    provider.shutdown()
    print(json.dumps({"trace": format_trace_id(span.get_span_context().trace_id)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
