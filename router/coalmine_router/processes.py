"""The processes that `router run` keeps: what is to be seen of them, and whether they answer."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from coalmine.process.addresses import split_address
from coalmine.process.child_process import Child
from coalmine.process.metric_families import MetricFamilies, merged_families

_log = structlog.get_logger(__name__)

_FAMILIES: Final = MetricFamilies("coalmine_router")
_LABEL: Final = "process"
_ANSWER_S: Final = 1.0
_ASKED_EACH_S: Final = 0.5
# A process that answers nothing for so long hangs; a machine that is busy isn't slower than this.
_HANGS_S: Final = 10.0
_ASKED_AT_ONCE: Final = 16


class ProcessMetrics(Collector):
    """The figures of all processes: asked for when somebody scrapes, and the supervisor's own.

    A process that is down or doesn't answer is left out. `shared` are processes of which there are
    several: each of their samples has a label `process`. `recycled` counts replacements, by name.
    """

    def __init__(
        self, alone: Sequence[Child], shared: Sequence[Child], recycled: Mapping[str, int]
    ) -> None:
        self._alone = alone
        self._all = (*alone, *shared)
        self._recycled = recycled
        self._unanswered = 0
        self._counting = threading.Lock()  # scrapes come in threads of their own

    def collect(self) -> Iterator[Metric]:
        """Return what the processes show, then how they are."""
        up = [(child, str(child.announcement["http"])) for child in self._all if child.is_up]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            pages = list(pool.map(lambda each: self._scrape(*each), up))
        labels = [self._label(child) for child, _ in up]
        yield from merged_families(zip(labels, pages, strict=True))
        yield from self._own_families()

    def _scrape(self, child: Child, address: str) -> list[Metric]:
        try:
            return list(text_string_to_metric_families(_fetch_metrics(address)))
        except (OSError, HTTPException, ValueError) as error:
            _log.warning("process_not_scraped", process=child.name, reason=str(error))
            with self._counting:
                self._unanswered += 1
            return []

    def _label(self, child: Child) -> dict[str, str]:
        return {} if child in self._alone else {_LABEL: child.name}

    def _own_families(self) -> Iterator[Metric]:
        up: Metric = _FAMILIES.gauge(
            "process_up", "Whether a process of this router is ready.", _LABEL
        )
        restarts: Metric = _FAMILIES.counter(
            "process_restarts", "Times that a process died and was started again.", _LABEL
        )
        failures: Metric = _FAMILIES.counter(
            "replacements_failed",
            "Processes that were to take another's place, and did not get ready.",
            _LABEL,
        )
        recycled: Metric = _FAMILIES.counter(
            "processes_recycled",
            "Times that a process gave its place to another, for its age or memory.",
            _LABEL,
        )
        for child in self._all:
            _add_sample(up, child.name, child.is_up)
            _add_sample(restarts, child.name, child.restarts)
            _add_sample(failures, child.name, child.failures)
            _add_sample(recycled, child.name, self._recycled.get(child.name, 0))
        yield from (up, restarts, failures, recycled)
        yield _FAMILIES.single_counter(
            "processes_not_scraped",
            "Processes that did not answer in time when /metrics was read.",
            self._unanswered,
        )


class ProcessWatch:
    """Asks every process now and then whether it is ready, and kills one that says nothing.

    It is started again, as after any death. `why_not` has the reason why no proxy serves, or "".
    """

    def __init__(
        self,
        children: Sequence[Child],
        proxies: Sequence[Child],
        *,
        hangs_s: float = _HANGS_S,
        each_s: float = _ASKED_EACH_S,
    ) -> None:
        self._children = children
        self._proxies = proxies
        self._hangs_s = hangs_s
        self._each_s = each_s
        # What each said last, by process id: one that is new has announced that it is ready.
        self._unready: dict[int, str] = {}

    def why_not(self) -> str:
        """Return why no proxy serves now; "" where one does."""
        reasons = []
        for proxy in self._proxies:
            reason = self._unready.get(proxy.pid, "") if proxy.is_up else "is down"
            if not reason:
                return ""
            reasons.append(f"{proxy.name} {reason}")
        return "no proxy serves: " + "; ".join(reasons)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for child in self._children:
                tasks.create_task(self._watch_child(child))

    async def _watch_child(self, child: Child) -> None:
        heard_s, heard_pid = _now_s(), 0
        while True:
            await asyncio.sleep(self._each_s)
            pid = child.pid
            if not child.is_up or pid != heard_pid:
                self._unready.pop(heard_pid, None)
                heard_s, heard_pid = _now_s(), pid
            if not child.is_up:
                continue
            status = await _ask_readiness_status(str(child.announcement["http"]))
            if status:
                heard_s = _now_s()
            self._note_readiness(pid, status)
            if _now_s() - heard_s > self._hangs_s and child.pid == pid:
                _log.error("process_hangs", process=child.name, pid=pid, silent_s=self._hangs_s)
                child.kill()

    def _note_readiness(self, pid: int, status: int) -> None:
        if status == 200:
            self._unready.pop(pid, None)
        else:
            self._unready[pid] = "is not ready" if status else "doesn't answer"


def _fetch_metrics(address: str) -> str:
    with contextlib.closing(HTTPConnection(address, timeout=_ANSWER_S)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


async def _ask_readiness_status(address: str) -> int:
    """Return the status code of a process's /readyz; 0 where it doesn't answer in time."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(*split_address(address))
            with contextlib.closing(writer):
                writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
                return int((await reader.readline()).split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _add_sample(family: Any, name: str, value: float) -> None:
    family.add_metric([name], value)
