"""A servicer over parts that a test has."""

from coalmine.clock import SystemClock
from coalmine.process.answer_gate import AnswerGate
from coalmine_server.calls import CallAccount
from coalmine_server.config import Bounds
from coalmine_server.extensions import Extensions, ModelLoading
from coalmine_server.figures.metrics import Metrics
from coalmine_server.grpc_front.servicer import Servicer
from coalmine_server.overview import Overview
from coalmine_server.registry import Registry
from coalmine_server.service import InferenceService
from coalmine_server.spans import NoSpanRecorder


def servicer_over(
    registry: Registry,
    loading: ModelLoading,
    overview: Overview,
    *,
    metrics: Metrics,
    gate: AnswerGate,
) -> Servicer:
    calls = CallAccount(
        clock=SystemClock(),
        spans=NoSpanRecorder(),
        count_unknown=metrics.unknown_counter(),
        bounds=Bounds(),
    )
    service = InferenceService(registry, calls, gate)
    return Servicer(service, Extensions(registry, loading, overview))
