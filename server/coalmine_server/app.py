"""The process, in order: it builds every part, joins them, and takes them down."""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from coalmine import telemetry
from coalmine.access.authorization import Authorization
from coalmine.access.certificate_dates import CertificateDates, listener_files
from coalmine.clock import SystemClock
from coalmine.errors import StartError
from coalmine.inference import SERVICE
from coalmine.listener.health import Health
from coalmine.listener.stream_limit import StreamRefused
from coalmine.process import lifecycle, machine
from coalmine.process.answer_gate import AnswerGate
from coalmine.process.exposition import exposing
from coalmine.process.lifecycle import Stop
from coalmine.spans.span_export import ENDS_S, open_span_outputs
from coalmine.spans.span_resource import resource
from coalmine.trace_context import sampler_from
from coalmine_server.batching.timers import LoopTimer
from coalmine_server.calls import CallAccount
from coalmine_server.config import ServerConfig
from coalmine_server.extensions import Extensions, LoadingRefused, ModelLoading
from coalmine_server.figures.metrics import Metrics
from coalmine_server.fleet.member import FleetMember, FleetMembership, SoleProcess
from coalmine_server.fleet.worker_slot import WorkerSlot
from coalmine_server.grpc_front.listener import ServerListener
from coalmine_server.grpc_front.method_access import ROLES
from coalmine_server.grpc_front.servicer import Servicer
from coalmine_server.loader import Loader
from coalmine_server.model_control import ModelControl
from coalmine_server.overview import LocalOverview, Overview
from coalmine_server.poll import Poller
from coalmine_server.registry import Registry
from coalmine_server.repository import Repository
from coalmine_server.runtime.torchscript import TorchScript
from coalmine_server.service import InferenceService
from coalmine_server.spans import NoSpanRecorder, RequestRecorder, SpanRecorder

_THREADS_END_S: Final = 1.0

_log = structlog.get_logger(__name__)


def run(config: ServerConfig, slot: WorkerSlot | None = None) -> int:
    """Serve until a signal, and return the exit code; with a slot, as one of several workers."""
    process = Process(config, slot=slot)
    code = lifecycle.run(process.serve, with_parent=slot is not None)
    if process.is_stuck:
        # Python can't end while a thread is inside torch: it would abort.
        sys.stderr.flush()
        os._exit(code)
    return code


class Process:
    """One server, from its configuration to its end."""

    def __init__(
        self,
        config: ServerConfig,
        announce: Callable[..., None] = lifecycle.announce,
        *,
        slot: WorkerSlot | None = None,
    ) -> None:
        self._config = config
        self._announce = announce
        self._member: FleetMembership = SoleProcess() if slot is None else FleetMember(slot)
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._health = Health()
        self._registry = Registry()
        self._servicers: list[Servicer] = []
        self._gate = AnswerGate()
        self.is_stuck = False  # a model's forward that never returns

    async def serve(self, stop: Stop) -> None:
        """Serve until `stop`. Raises StartError with nothing left running."""
        config, member = self._config, self._member
        repository = Repository(config.repository, hashed_only=config.poll_s > 0)
        control = self._build_control(repository)
        poller = Poller(repository, member.follower_of(control))
        await poller.note_known_stamps()
        unloaded = member.read_unloaded_models()
        control.register_models(lenient=config.is_lenient)
        ending = partial(stop.left_s, config.grace_s)
        exporting = _export_spans(config.traces, self._metrics, ending)
        with exporting as spans, self._serve_metrics(stop) as http:
            calls = self._open_call_account(spans)
            service = InferenceService(self._registry, calls, self._gate)
            servicer = partial(self._add_servicer, service)
            own = LocalOverview(self._registry, self._metrics.memory_by_device)
            access = (
                None
                if config.tokens is None
                else Authorization.from_file(config.tokens, ROLES, self._clock)
            )
            listener = self._build_listener(
                member.loading_of(control), member.overview_with(own), servicer, access
            )
            self._metrics.registry.register(StreamRefused("coalmine_server", *listener.limits))
            await self._update_health()
            async with self._close_at_end(listener, control):
                addresses = await listener.open() if member.listens_early else {}
                opening = control.open(
                    lenient=config.is_lenient,
                    unloaded=unloaded,
                    waits_for_all_models=member.waits_for_all_models,
                )
                if await lifecycle.wait_unless_stopped(stop, opening):
                    await self._update_health()
                    joined = member.join(control, servicer(control, own))
                    async with (
                        control.accept_changes(),
                        joined,
                        _run_background_tasks(calls, access, self._register_certificates()),
                    ):
                        addresses = addresses or await listener.open()
                        self._announce_ready(http=http, **addresses)
                        await lifecycle.wait_unless_stopped(stop, poller.run(config.poll_s))

    def _announce_ready(self, **addresses: str) -> None:
        _log.info("serving", config=str(self._config))
        self._announce(**addresses)

    @contextlib.asynccontextmanager
    async def _close_at_end(
        self, listener: ServerListener, control: ModelControl
    ) -> AsyncIterator[None]:
        try:
            yield
        finally:
            began_ns = self._clock.monotonic_ns()
            await listener.close(self._gate, self._refuse_new_calls)
            self.is_stuck = not control.close(timeout_s=_THREADS_END_S)
            if self.is_stuck:
                waited_s = (self._clock.monotonic_ns() - began_ns) / 1e9
                _log.error("forward_never_returned", waited_s=round(waited_s, 1))

    def _refuse_new_calls(self) -> None:
        self._registry.drain()
        for each in self._servicers:
            each.drain()

    async def _notify_serving(self, name: str, serves: bool) -> None:  # noqa: FBT001 - a callback's
        await lifecycle.set_serving(self._health, f"model/{name}", serving=serves)
        await self._update_health()

    async def _update_health(self) -> None:
        for name in ("", SERVICE):
            await lifecycle.set_serving(self._health, name, serving=self._registry.is_ready)

    @contextlib.contextmanager
    def _serve_metrics(self, stop: Stop) -> Iterator[str]:
        """Yield the address of /metrics and health over HTTP, which answers until the end."""

        def is_ready() -> bool:
            return self._registry.is_ready and not stop.is_asked

        with exposing(self._config.http, self._metrics.registry, is_ready) as http:
            yield http

    # ------------------------------------------------------------ parts

    def _build_control(self, repository: Repository) -> ModelControl:
        loader = Loader(
            runtime=TorchScript(),
            clock=self._clock,
            timer=LoopTimer(self._clock),
            metrics=self._metrics,
            cores=self._member.cores,
            intra_op=self._config.intra_op,
            limits=self._config.loads,
        )
        return ModelControl(
            repository,
            self._registry,
            loader,
            self._metrics,
            notify=self._notify_serving,
            grace_s=self._config.grace_s,
        )

    def _open_call_account(self, spans: RequestRecorder) -> CallAccount:
        calls = CallAccount(
            clock=self._clock,
            spans=spans,
            count_unknown=self._metrics.unknown_counter(),
            bounds=self._config.bounds,
        )
        self._metrics.watch_in_flight(lambda: calls.in_flight, lambda: calls.in_flight_bytes)
        return calls

    def _add_servicer(
        self, service: InferenceService, loading: ModelLoading, overview: Overview
    ) -> Servicer:
        """Return a new servicer, which is drained with all others."""
        servicer = Servicer(service, Extensions(self._registry, loading, overview))
        self._servicers.append(servicer)
        return servicer

    def _register_certificates(self) -> CertificateDates:
        dates = CertificateDates(listener_files(self._config.tls), "coalmine_server", self._clock)
        self._metrics.registry.register(dates)
        return dates

    def _build_listener(
        self,
        loading: ModelLoading,
        overview: Overview,
        servicer: Callable[[ModelLoading, Overview], Servicer],
        access: Authorization | None,
    ) -> ServerListener:
        """Return the listeners; loading is offered where the configuration says, if at all."""
        config = self._config
        if not config.allow_load:
            loading = LoadingRefused("it needs --allow-load")
        admin = None
        if config.admin_listen is not None:
            admin = servicer(loading, overview)
            loading = LoadingRefused(f"it is at the admin listener, {config.admin_listen}")
        main = servicer(loading, overview)
        return ServerListener(config, self._health, main, admin, access=access, clock=self._clock)


@contextlib.asynccontextmanager
async def _run_background_tasks(
    calls: CallAccount, access: Authorization | None, certificates: CertificateDates
) -> AsyncIterator[None]:
    """Until the block ends, give memory back and follow the files of tokens and certificates."""
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(machine.keep_giving_memory_back(lambda: not calls.in_flight))]
        beside.append(tasks.create_task(certificates.keep_logging()))
        if access is not None:
            beside.append(tasks.create_task(access.follow_file()))
        try:
            yield
        finally:
            for task in beside:
                task.cancel()


@contextlib.contextmanager
def _export_spans(
    traces: Path | None, metrics: Metrics, ending_s: Callable[[], float]
) -> Iterator[RequestRecorder]:
    """Yield the recorder of requests; at the end, export what is left in the time that is left."""
    try:
        sampler = sampler_from(os.environ)
    except ValueError as error:
        raise StartError(str(error)) from None
    counted = open_span_outputs(traces)
    if counted is None:
        yield NoSpanRecorder()
        return
    metrics.watch_spans(counted.totals)
    try:
        rng = random.Random(os.urandom(16))  # noqa: S311 - span ids, no secrets
        yield SpanRecorder(resource(telemetry.SERVER_SERVICE), counted, sampler=sampler, rng=rng)
    finally:
        counted.shutdown(max(ENDS_S, ending_s()))
