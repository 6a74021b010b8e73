"""Builds and joins the parts that learn: what takes a report from the wire to a verdict."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine.cores import cores
from coalmine_router.channels import Channels
from coalmine_router.config.route import RouteConfig
from coalmine_router.observer.comparison.busy import pool_size
from coalmine_router.observer.comparison.job import Job, Results, run
from coalmine_router.observer.comparison.pool import Comparing, PoolLimits
from coalmine_router.observer.comparison.process import WorkerProcess
from coalmine_router.observer.concluding import Concluding
from coalmine_router.observer.copies.copies import Answered, Copies, GivenUp
from coalmine_router.observer.copies.limits import CopyLimits, configured
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trial_file import FILE as EVIDENCE_FILE
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.examples.store import FILE as EXAMPLES_FILE
from coalmine_router.observer.examples.store import Mismatches
from coalmine_router.observer.intake import Intake
from coalmine_router.observer.learned import Learned
from coalmine_router.observer.learning import Learning
from coalmine_router.observer.observer import Observer
from coalmine_router.observer.outputs import OutputsCheck
from coalmine_router.observer.settings import settings_of
from coalmine_router.observer.telling.evidence_metrics import EvidenceMetrics
from coalmine_router.observer.telling.metrics import RouterMetrics
from coalmine_router.observer.telling.teller import NoSpans, Spans, Teller
from coalmine_router.observer.totals import ReportTotals
from coalmine_router.observer.traffic import Traffic
from coalmine_router.observer.warned import WarningCounts
from coalmine_router.table import RouteTable

_OUTPUTS_FILE: Final = "outputs-known.json"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the observer is given: where it writes, what it asks, and by what it goes."""

    folder: Path
    tables: Callable[[], RouteTable]
    routes: Mapping[str, RouteConfig]
    clock: Clock
    rng: random.Random
    registry: CollectorRegistry
    resource: Resource
    spans: Spans = field(default_factory=NoSpans)
    copy_limits: CopyLimits = field(default_factory=CopyLimits)
    pool_limits: PoolLimits = field(default_factory=PoolLimits)
    processes_max: int = field(default_factory=lambda: pool_size(cores()))


class ObserverPlane:
    """One router's observer. Its life: `open`, `run` in a task.

    Its end: `end_streams`, `settled`, cancel `run`, `close`.
    """

    def __init__(self, given: Surroundings) -> None:
        self._given = given
        routes = {name: settings_of(each) for name, each in given.routes.items()}
        clock, rng = given.clock, given.rng
        self._routes = routes
        traffic, reports, tally, warned = Traffic(), ReportTotals(), Tally(), WarningCounts()
        self._trials = Trials()
        self.store = EvidenceStore(given.folder / EVIDENCE_FILE, self._trials, clock)
        self._examples = Mismatches(given.folder / EXAMPLES_FILE, routes=given.routes, clock=clock)
        self._comparing: Comparing[Job, Results] = Comparing(
            run=run,
            start=partial(WorkerProcess, run),
            clock=clock,
            chance=rng.random,
            processes_max=given.processes_max,
            limits=given.pool_limits,
        )
        learning = Learning(self._trials, tally, routes, clock)
        concluding = Concluding(
            compares=self._comparing,
            learning=learning,
            examples=self._examples,
            warned=warned,
            routes=routes,
            clock=clock,
            rng=rng,
        )
        self._observer = Observer(
            tables=given.tables,
            routes=routes,
            traffic=traffic,
            learning=learning,
            copies=self._copies,
            concluding=concluding,
            store=self.store,
            teller=Teller(given.spans, given.resource, rng),
        )
        self._intake = Intake(reports, self._observer.observe)
        self.learned = Learned(
            since_ns=clock.wall_ns(),
            routes=routes,
            traffic=traffic,
            reports=reports,
            copies=self._observer.copies,
            comparing=self._comparing.counts,
            trials=self._trials,
            store=self.store,
            examples=self._examples,
        )
        given.registry.register(
            RouterMetrics(
                traffic=traffic,
                reports=reports,
                streams_turned_away=lambda: self._intake.turned_away,
                lanes=self._observer.copies.totals,
                spans=given.spans.totals,
                mismatches=self._examples.totals,
            )
        )
        given.registry.register(
            EvidenceMetrics(
                tally=tally,
                trials=self._trials,
                comparing=self._comparing.counts,
                warnings=warned.totals,
                saves=self.store,
                split_left_out=lambda: learning.split_left_out,
            )
        )

    def _copies(self, answered: Answered, given_up: GivenUp) -> Copies:
        given = self._given
        return Copies(
            channels=lambda: Channels(given.clock),
            settings=configured(given.routes),
            answered=answered,
            given_up=given_up,
            clock=given.clock,
            rng=given.rng,
            limits=given.copy_limits,
        )

    async def open(self, channels: Channels) -> None:
        """Take up the evidence of before. Raises StartError where rules name no output there is."""
        table = self._given.tables()
        check = OutputsCheck(channels, self._given.folder / _OUTPUTS_FILE)
        await check.run(table, self._routes)
        await self.store.load(partial(_has, table))

    def servicer(self) -> pb_grpc.ReportsServicer:
        """Return the service that proxies send their reports to."""
        return self._intake

    async def run(self) -> None:
        """Learn from what comes in, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observer.run())
            tasks.create_task(self._comparing.run())
            tasks.create_task(self.store.run())
            tasks.create_task(self._examples.run())

    def end_streams(self) -> None:
        """End the proxies' streams, so that a graceful stop needn't wait for them."""
        self._intake.end_streams()

    async def settled(self) -> None:
        """Return once every report that came in has been learnt from."""
        await self._observer.settled()
        await self._comparing.settled()

    async def close(self) -> None:
        """Write down what was learnt, and let go of channels and files."""
        await self._observer.copies.close()
        await self.store.close()
        await self._examples.close()


def _has(table: RouteTable, pair: Pair) -> bool:
    """Return whether a table has both sides of a pair."""
    route = table.by_route.get(pair.route)
    return route is not None and {pair.reference, pair.candidate} <= route.by_name.keys()
