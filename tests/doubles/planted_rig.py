"""The run of tests/e2e/test_planted_mismatches.py: a router, its load, a collector that dies."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from tests.doubles.collector_process import CollectorProcess
from tests.doubles.otlp_receiver import ReceivedSpan
from tests.doubles.planted import (
    MODEL,
    RIGHT_VERSION,
    WRONG_VERSION,
    Plan,
    is_sampled,
    trace_id,
)
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import configuration, router
from tests.doubles.waiting import until
from tests.soak.programs import Program, program

RATIO = 0.01
CANDIDATE = "next"
# The request, the call to stable, the one to the shadow, and the comparison.
SPANS_A_TRACE = 4
# One verdict becomes another.
VERDICT_SPANS = 1

_EXPORTER = {
    # A batch that nobody takes is given up soon: an outage need not last for minutes.
    "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_TRACES_SAMPLER": "traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": str(RATIO),
}
_FEW = 20


@dataclass(frozen=True)
class Outcome:
    """What became of the calls, and what router and collector say after it all.

    `since` is the first request of those made once spans had come to the new collector.
    """

    plan: Plan
    calls: Counter[str]
    since: int
    status: Mapping[str, Any]
    mismatches: Sequence[Mapping[str, Any]]
    page: str
    spans: Sequence[ReceivedSpan]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of those of a metric's samples that have these labels."""
        return metric(self.page, name, **labels)

    @property
    def pair(self) -> Mapping[str, Any]:
        """What was found of the one pair."""
        [pair] = self.status["comparisons"]
        return cast("Mapping[str, Any]", pair)

    @property
    def kept(self) -> frozenset[str]:
        """The traces that have to be kept."""
        return kept(self.plan, self.status)


def kept(plan: Plan, status: Mapping[str, Any]) -> frozenset[str]:
    """Return the traces that have to be kept.

    Those of the planted requests, those that the head sampler takes, and the one that decided.
    """
    sampled = {each for each in range(plan.count) if is_sampled(each, RATIO)}
    tipped = {each["verdict"]["trace_id"] for each in status["comparisons"]} - {""}
    return frozenset(map(trace_id, plan.planted | sampled)) | tipped


def metric(page: str, name: str, **labels: str) -> float:
    """Return the sum of those of a metric's samples that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"coalmine_router_{name}" and labels.items() <= sample.labels.items()
    )


class Run:
    """A router under load. Of its requests, `made` have been answered."""

    def __init__(self, running: Started, load: Program, collector: CollectorProcess) -> None:
        self._running = running
        self._load = load
        self._collector = collector
        self.calls: Counter[str] = Counter()

    @property
    def made(self) -> int:
        return self.calls.total()

    def ask(self, count: int) -> None:
        """Have so many requests made."""
        self._begin(count)
        self._end()

    def lose_collector(self, count: int) -> None:
        """Have requests made, kill the collector meanwhile, and wait until spans are lost."""
        self._begin(count)
        self._collector.kill()
        self._end()
        until(lambda: self._spans("dropped_export_failed") > 0, 20)

    def recover(self) -> None:
        """Start the collector again; have requests made, a few at a time, until spans arrive."""
        before = self._spans("exported")
        self._collector.start()

        def arrive() -> bool:
            self.ask(_FEW)
            return self._spans("exported") > before

        until(arrive, 30)

    def finish(self, plan: Plan) -> None:
        """Have the last requests made, and wait until all that came of them has been told.

        Not for ever: it is for the tests to say what is missing.
        """
        self.ask(plan.count - self.made)
        with suppress(AssertionError):
            until(lambda: metric(self.page(), "comparisons_total") >= plan.count, 30)
            spans = SPANS_A_TRACE * len(kept(plan, self.status())) + VERDICT_SPANS
            until(lambda: self._spans("exported", "dropped_export_failed") >= spans, 20)

    def status(self) -> Mapping[str, Any]:
        # Spans that were lost while the collector was away degrade the route.
        return self._said("status", MODEL, codes=(0, 5))

    def mismatches(self) -> Sequence[Mapping[str, Any]]:
        said = self._said("mismatches", MODEL, "--limit", "1000")
        return cast("Sequence[Mapping[str, Any]]", said["mismatches"])

    def page(self) -> str:
        return self._running.page()

    def _said(self, *arguments: str, codes: Sequence[int] = (0,)) -> Mapping[str, Any]:
        """Return what a verb of the program says."""
        environment = {"COALMINE_CONTROL": self._running.address("control")}
        done = ran(*arguments, "--json", folder=self._running.log.parent, environment=environment)
        assert done.returncode in codes, done.stderr
        return cast("Mapping[str, Any]", json.loads(done.stdout))

    def _begin(self, count: int) -> None:
        assert self._load.process.stdin is not None
        self._load.process.stdin.write(f"{count}\n")
        self._load.process.stdin.flush()

    def _end(self) -> None:
        said = json.loads(self._load.read())
        self.calls.update({"right": said["right"], **said["wrong"]})

    def _spans(self, *results: str) -> float:
        page = self.page()
        return sum(metric(page, "spans_total", result=each) for each in results)


def outcome_of(plan: Plan, folder: Path) -> Outcome:
    """Return what becomes of a plan's requests; when a third is made, the collector dies."""
    collector = CollectorProcess(folder / "spans.jsonl")
    collector.start()
    try:
        with _running(plan, folder, collector) as run:
            run.ask(plan.count // 3)
            run.lose_collector(plan.count // 3)
            run.recover()
            since = run.made
            run.finish(plan)
            said = run.status(), run.mismatches(), run.page()
            return Outcome(plan, run.calls, since, *said, collector.spans())
    finally:
        collector.kill()


@contextmanager
def _running(plan: Plan, folder: Path, collector: CollectorProcess) -> Iterator[Run]:
    with program("tests.doubles.planted_backend") as backend:
        file = configuration(
            folder,
            backend.read(),
            variants={
                "stable": {"backend": "blue", "version": RIGHT_VERSION},
                CANDIDATE: {"backend": "blue", "version": WRONG_VERSION},
            },
            shadows={CANDIDATE: 100},
            # Far from what is planted: the verdict is PASS, whatever comes first.
            gates={"max_mismatch_rate": 0.1, "per": "request", "min_duration": "0s"},
        )
        environment = {**_EXPORTER, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        with router(file, environment=environment) as running:
            addresses = running.address("data"), running.address("control")
            with program("tests.doubles.planted_load", *addresses, *plan.arguments) as load:
                yield Run(running, load, collector)
