"""The processes that `router run` keeps, in the metrics of the one that has metrics.

The supervisor answers nobody: it writes a small file, which the control process reads for /metrics.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ValidationError

from coalmine.child_process import Child
from coalmine.errors import reason_of

_log = structlog.get_logger(__name__)

FILE_NAME: Final = "processes.json"

_LABELS: Final = ("process",)


class Kept(BaseModel):
    """One process."""

    is_up: bool
    restarts: int
    failures: int


class Told(BaseModel):
    """What the file holds; it is of no one but the process that wrote it."""

    supervisor: int
    processes: dict[str, Kept]


class ProcessFile:
    """Where the supervisor writes them down, whenever they are others than last time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: Told | None = None

    def note(self, children: Sequence[Child]) -> None:
        """Write what is true of them now; a disk that is full is no reason not to go on."""
        kept = {
            each.name: Kept(is_up=each.is_up, restarts=each.restarts, failures=each.failures)
            for each in children
        }
        told = Told(supervisor=os.getpid(), processes=kept)
        if told == self._written:
            return
        self._written = told
        draft = self._file.with_name(f"{self._file.name}.new")
        try:
            draft.write_text(told.model_dump_json(), encoding="utf-8")
            draft.replace(self._file)
        except OSError as error:
            _log.warning("processes_not_noted", file=str(self._file), reason=reason_of(error))


class ProcessMetrics(Collector):
    """What `supervisor` wrote, read when it is asked for; nothing where it wrote nothing."""

    def __init__(self, file: Path, supervisor: int) -> None:
        self._file = file
        self._supervisor = supervisor

    def collect(self) -> Iterable[Metric]:
        """Return what is kept, and how often it had to be started again."""
        kept = self._read()
        up: Metric = GaugeMetricFamily(
            "coalmine_router_process_up",
            "Whether a process of this router is ready.",
            labels=_LABELS,
        )
        restarts: Metric = CounterMetricFamily(
            "coalmine_router_process_restarts",
            "Times that a process died and was started again.",
            labels=_LABELS,
        )
        failures: Metric = CounterMetricFamily(
            "coalmine_router_replacements_failed",
            "Processes that were to take another's place, and did not get ready.",
            labels=_LABELS,
        )
        for name, each in kept.items():
            _add(up, name, each.is_up)
            _add(restarts, name, each.restarts)
            _add(failures, name, each.failures)
        return up, restarts, failures

    def _read(self) -> Mapping[str, Kept]:
        try:
            told = Told.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return {}
        return told.processes if told.supervisor == self._supervisor else {}


def _add(family: Any, name: str, value: float) -> None:
    family.add_metric([name], value)
