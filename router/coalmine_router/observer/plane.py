"""Builds and joins the parts that learn: what takes a report from the wire to a verdict."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine.process.machine import usable_cores
from coalmine_router.backends.registry import Backends
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.compare_answers import AnswerComparer
from coalmine_router.observer.comparison.comparer import Comparer, ComparerLimits
from coalmine_router.observer.comparison.job import ComparisonJob, JobResults, results_of
from coalmine_router.observer.comparison.loop_load import pool_size
from coalmine_router.observer.comparison.worker_process import WorkerProcess
from coalmine_router.observer.copies.copy_limits import CopyLimits, settings_by_copy
from coalmine_router.observer.copies.copy_sender import CopySender
from coalmine_router.observer.copies.reach import CopyReach
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trial_file import FILE as EVIDENCE_FILE
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.evidence_intake import EvidenceIntake
from coalmine_router.observer.examples.example_store import FILE as EXAMPLES_FILE
from coalmine_router.observer.examples.example_store import ExampleStore
from coalmine_router.observer.intake import ReportIntake
from coalmine_router.observer.observer import Observer
from coalmine_router.observer.output.evidence_metrics import EvidenceMetrics
from coalmine_router.observer.output.metrics import RouterMetrics
from coalmine_router.observer.output.span_writer import NoSpans, SpanSink, SpanWriter
from coalmine_router.observer.outputs import OutputsCheck
from coalmine_router.observer.queries import ObserverQueries
from coalmine_router.observer.recent import INTERVAL_S
from coalmine_router.observer.route_settings import settings_of
from coalmine_router.observer.totals import ReportTotals
from coalmine_router.observer.traffic_counts import TrafficCounts
from coalmine_router.observer.warned import WarningCounts
from coalmine_router.table import RouteTable

_OUTPUTS_FILE: Final = "outputs-known.json"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the observer is given: where it writes, what it asks, and by what it goes."""

    folder: Path
    tables: Callable[[], RouteTable]
    backends: Backends
    routes: Mapping[str, RouteConfig]
    clock: Clock
    rng: random.Random
    registry: CollectorRegistry
    resource: Resource
    spans: SpanSink = field(default_factory=NoSpans)
    copy_limits: CopyLimits = field(default_factory=CopyLimits)
    pool_limits: ComparerLimits = field(default_factory=ComparerLimits)
    processes_max: int = field(default_factory=lambda: pool_size(usable_cores()))


class ObserverPlane:
    """One router's observer. Its life: `open`, `run` in a task.

    Its end: `end_streams`, `wait_until_idle`, cancel `run`, `close`.
    """

    def __init__(self, given: Surroundings) -> None:
        self._given = given
        self._routes = {name: settings_of(each) for name, each in given.routes.items()}
        # What is counted.
        self._traffic, self._reports = TrafficCounts(), ReportTotals()
        self._tally, self._warned, self._trials = Tally(), WarningCounts(), Trials()
        # What is kept.
        self._store = EvidenceStore(given.folder / EVIDENCE_FILE, self._trials, given.clock)
        self._examples = ExampleStore(
            given.folder / EXAMPLES_FILE, routes=given.routes, clock=given.clock
        )
        # Who does it.
        self._comparing = self._make_comparer()
        self._evidence = EvidenceIntake(
            self._trials, self._tally, self._routes, given.clock, given.backends.ready_addresses
        )
        self._spans = SpanWriter(given.spans, given.resource, given.rng, given.clock)
        self._copies = self._make_copy_sender()
        self._observer = self._make_observer()
        self._intake = ReportIntake(self._reports, self._observer.observe)
        # Who tells of it.
        self.queries = self._make_queries()
        given.registry.register(self._make_traffic_metrics())
        given.registry.register(self._make_evidence_metrics())

    def _make_comparer(self) -> Comparer[ComparisonJob, JobResults]:
        return Comparer(
            run=results_of,
            start=partial(WorkerProcess, results_of),
            clock=self._given.clock,
            chance=self._given.rng.random,
            processes_max=self._given.processes_max,
            limits=self._given.pool_limits,
        )

    def _make_observer(self) -> Observer:
        given = self._given
        comparer = AnswerComparer(
            compares=self._comparing,
            evidence=self._evidence,
            examples=self._examples,
            warned=self._warned,
            routes=self._routes,
            clock=given.clock,
            rng=given.rng,
        )
        return Observer(
            tables=given.tables,
            routes=self._routes,
            traffic=self._traffic,
            copies=self._copies,
            comparer=comparer,
            evidence=self._evidence,
            store=self._store,
            spans=self._spans,
        )

    def _make_copy_sender(self) -> CopySender:
        given = self._given
        return CopySender(
            reach=CopyReach(given.backends, given.clock),
            settings=settings_by_copy(given.routes),
            clock=given.clock,
            rng=given.rng,
            limits=given.copy_limits,
        )

    def _make_queries(self) -> ObserverQueries:
        return ObserverQueries(
            since_ns=self._given.clock.wall_ns(),
            routes=self._routes,
            traffic=self._traffic,
            reports=self._reports,
            copies=self._copies,
            comparing=self._comparing.counts,
            trials=self._trials,
            ready=self._given.backends.ready_addresses,
            store=self._store,
            examples=self._examples,
            spans=self._given.spans,
            now_ns=self._given.clock.monotonic_ns(),
        )

    def _make_traffic_metrics(self) -> RouterMetrics:
        return RouterMetrics(
            traffic=self._traffic,
            reports=self._reports,
            streams_turned_away=lambda: self._intake.turned_away,
            lanes=self._copies.totals,
            spans=self._given.spans.totals,
            refusals_left_out=lambda: self._spans.refusals_left_out,
            mismatches=self._examples.totals,
        )

    def _make_evidence_metrics(self) -> EvidenceMetrics:
        return EvidenceMetrics(
            tally=self._tally,
            trials=self._trials,
            comparing=self._comparing.counts,
            warnings=self._warned.totals,
            saves=self._store,
            split_left_out=lambda: self._evidence.split_left_out,
            out_of_turn=lambda: self._observer.out_of_turn,
        )

    # ------------------------------------------------------------ its life

    async def open(self) -> None:
        """Take up the evidence of before, as far as it was gathered by the settings of now."""
        table = self._given.tables()
        await self._store.load(partial(_has_pair, table))
        self._evidence.begin_changed_trials(table)

    def servicer(self) -> pb_grpc.ReportsServicer:
        """Return the service that proxies send their reports to."""
        return self._intake

    async def run(self) -> None:
        """Learn from what comes in, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observer.run())
            tasks.create_task(self._comparing.run())
            tasks.create_task(self._store.run())
            tasks.create_task(self._examples.run())
            tasks.create_task(self._note_counts())

    async def _note_counts(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.queries.note_counts(self._given.clock.monotonic_ns())

    def end_streams(self) -> None:
        """End the proxies' streams, so that a graceful stop needn't wait for them."""
        self._intake.end_streams()

    async def wait_until_idle(self) -> None:
        """Return once every report that came in has been learnt from."""
        await self._observer.wait_until_idle()
        await self._comparing.wait_until_idle()

    async def close(self) -> None:
        """Write down what was learnt, and let go of files."""
        await self._store.close()
        await self._examples.close()


async def check_rules(
    table: RouteTable, routes: Iterable[RouteConfig], backends: Backends, folder: Path
) -> None:
    """Raise StartError where rules name no output there is; `backends` follow the table."""
    settings = {route.name: settings_of(route) for route in routes}
    await OutputsCheck(backends, folder / _OUTPUTS_FILE).run(table, settings)


def _has_pair(table: RouteTable, pair: Pair) -> bool:
    """Return whether a table has both sides of a pair."""
    route = table.by_route.get(pair.route)
    return route is not None and {pair.reference, pair.candidate} <= route.by_name.keys()
