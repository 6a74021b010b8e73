"""The process: builds every part, joins them, and takes them down. Its table of contents."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc

from coalmine import lifecycle, telemetry
from coalmine.clock import Clock, SystemClock
from coalmine.errors import StartError
from coalmine.exposition import Exposition
from coalmine.health import Health
from coalmine.inference import SERVICE, inference_pb2
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.lifecycle import MESSAGE_LIMITS, Stop
from coalmine.reflection import reflect
from coalmine.span_export import CountedSpans, exporter_for, resource
from coalmine.trace_context import sampler_from
from coalmine_server.batcher import LoopTimer
from coalmine_server.config import ServerConfig
from coalmine_server.cores import cores
from coalmine_server.extensions import Extensions
from coalmine_server.metrics import Metrics
from coalmine_server.registry import Registry
from coalmine_server.repository import Repository
from coalmine_server.runtime.torchscript import TorchScript
from coalmine_server.service import InferenceService
from coalmine_server.spans import NoSpans, Recorder, Spans

_THREADS_END_S: Final = 1.0
_OPTIONS: Final = (
    *MESSAGE_LIMITS,
    ("grpc.so_reuseport", 0),  # or a second server would silently take half of the callers
)

_log = structlog.get_logger(__name__)


def run(config: ServerConfig) -> int:
    """Serve until a signal; return the exit code."""
    process = Process(config)
    code = lifecycle.run(process.serve)
    if process.is_stuck:
        # Python can't end while a thread is inside torch: it would abort.
        sys.stderr.flush()
        os._exit(code)
    return code


class Process:
    """One server, from its configuration to its end."""

    def __init__(
        self, config: ServerConfig, announce: Callable[..., None] = lifecycle.announce
    ) -> None:
        self._config = config
        self._announce = announce
        self.is_stuck = False  # a model's forward that never returns

    async def serve(self, stop: Stop) -> None:
        """Serve until `stop`. Raises StartError with nothing left running."""
        config, clock, metrics = self._config, SystemClock(), Metrics()
        registry = Registry(
            Repository(config.repository).models(),
            runtime=TorchScript(),
            clock=clock,
            timer=LoopTimer(clock),
            metrics=metrics,
            cores=cores(),
        )
        with (
            _exporting(config.traces, metrics) as spans,
            _exposing(
                config.http, metrics, lambda: registry.is_ready and not stop.asked
            ) as http_address,
        ):
            door = Door(registry, clock, metrics, spans)
            grpc_address = await lifecycle.listen(door.server, config.listen)
            async with self._draining(door, registry):
                await door.tell(serving=False)
                await door.server.start()
                if await lifecycle.unless_stopped(stop, registry.open()):
                    await door.tell(serving=True)
                    _log.info("serving", config=str(config))
                    self._announce(grpc=grpc_address, http=http_address)
                    await stop.wait()

    @contextlib.asynccontextmanager
    async def _draining(self, door: "Door", registry: Registry) -> AsyncIterator[None]:
        try:
            yield
        finally:
            grace_s = self._config.grace_s
            await lifecycle.drain(door.server, door.health, grace_s=grace_s, refuse=registry.drain)
            self.is_stuck = not registry.close(timeout_s=_THREADS_END_S)
            if self.is_stuck:
                _log.error("forward_never_returned", waited_s=grace_s)


class Service(InferenceService, Extensions):
    """Both halves of the protocol, over one registry."""

    def __init__(self, registry: Registry, clock: Clock, metrics: Metrics, spans: Recorder) -> None:
        Extensions.__init__(self, registry)
        InferenceService.__init__(
            self,
            registry=registry,
            clock=clock,
            spans=spans,
            answered_unknown=metrics.unknown_model(),
        )


class Door:
    """The gRPC side: the protocol, health and reflection on one server; not serving at first."""

    def __init__(self, registry: Registry, clock: Clock, metrics: Metrics, spans: Recorder) -> None:
        self._registry = registry
        self.server = grpc.aio.server(options=_OPTIONS)
        self.health = Health()
        service = Service(registry, clock, metrics, spans)
        metrics.watch_in_flight(lambda: service.in_flight)
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(service, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        reflect(self.server, (SERVICE,), (inference_pb2,))

    async def tell(self, *, serving: bool) -> None:
        """Tell grpc.health.v1 of the process, the service and every model."""
        for name in ("", SERVICE, *(f"model/{each}" for each in self._registry.names)):
            await lifecycle.set_serving(self.health, name, serving=serving)


@contextlib.contextmanager
def _exporting(traces: Path | None, metrics: Metrics) -> Iterator[Recorder]:
    """Yield where exchanges go; export what is left at the end."""
    try:
        sampler_from(os.environ)  # the SDK itself would take a wrong name for always_on
    except ValueError as error:
        raise StartError(str(error)) from None
    exporter = exporter_for(traces)
    if exporter is None:
        yield NoSpans()
        return
    counted = CountedSpans(exporter)
    metrics.watch_spans(counted.totals)
    try:
        yield Spans(resource(telemetry.SERVER_SERVICE), counted)
    finally:
        counted.shutdown()


@contextlib.contextmanager
def _exposing(address: str, metrics: Metrics, ready: Callable[[], bool]) -> Iterator[str]:
    """Yield the address of /metrics and health over HTTP, which answers until the end."""
    exposition = Exposition(address, metrics.registry, ready)
    exposition.start()
    try:
        yield exposition.address
    finally:
        exposition.stop()
