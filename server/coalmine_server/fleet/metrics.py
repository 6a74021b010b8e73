"""`/metrics` of several workers as one page: a label names each sample's worker."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

import structlog
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from coalmine.process.metric_families import MetricFamilies, merged_families

_log = structlog.get_logger(__name__)

WORKER: Final = "worker"
_ANSWER_S: Final = 1.0
_FAMILIES: Final = MetricFamilies("coalmine_server")
_RESTARTED: Final = "Workers that died and were started again"
_RECYCLED: Final = "Workers that gave their place to another, for their age or memory"
_NOT_REPLACED: Final = "Workers that were to take another's place, and did not get ready"
_NOT_SCRAPED: Final = "Workers that did not answer in time when /metrics was read"


class WorkerState(NamedTuple):
    """A worker as its supervisor knows it: its HTTP address while it is up, and three counts.

    They are its restarts, its replacements, and the replacements that did not get ready.
    """

    http: str | None
    restarts: int
    recycled: int = 0
    failures: int = 0


WorkerStates = Mapping[int, WorkerState]
FetchMetrics = Callable[[str], str]


def fetch_metrics(address: str) -> str:
    """Return the text of a worker's /metrics. Raises OSError without an answer for a second."""
    return _http_get(address, "/metrics")[1].decode()


def ask_serving(address: str) -> bool:
    """Return whether a worker's /readyz says that callers may come."""
    try:
        return _http_get(address, "/readyz")[0] == HTTPStatus.OK
    except OSError:
        return False


def ask_any_serving(workers: WorkerStates, ask: Callable[[str], bool] = ask_serving) -> bool:
    """Return whether at least one worker that is up says that callers may come."""
    up = [each.http for each in workers.values() if each.http is not None]
    if not up:
        return False
    with ThreadPoolExecutor(len(up)) as pool:
        return any(pool.map(ask, up))


def _http_get(address: str, path: str) -> tuple[int, bytes]:
    with contextlib.closing(HTTPConnection(address, timeout=_ANSWER_S)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from None


class FleetMetrics(Collector):
    """Asks all workers at each scrape; one that does not answer is left out."""

    def __init__(
        self, workers: Callable[[], WorkerStates], fetch: FetchMetrics = fetch_metrics
    ) -> None:
        self._workers = workers
        self._fetch = fetch
        self._unanswered = 0
        self._counting = threading.Lock()  # scrapes come in threads of their own

    def collect(self) -> Iterator[Metric]:
        """Return the workers' metrics, then those of the supervisor."""
        workers = self._workers()
        yield from metrics_of(self._fetch_all(workers))
        yield from self._worker_metrics(workers)

    def _fetch_all(self, workers: WorkerStates) -> dict[int, str]:
        up = {index: each.http for index, each in workers.items() if each.http is not None}
        if not up:
            return {}
        with ThreadPoolExecutor(len(up)) as pool:
            texts = dict(zip(up, pool.map(self._fetch_one, up, up.values()), strict=True))
        return {index: text for index, text in texts.items() if text is not None}

    def _fetch_one(self, index: int, address: str) -> str | None:
        try:
            return self._fetch(address)
        except OSError as error:
            _log.warning("worker_not_scraped", peer=index, reason=str(error))
            with self._counting:
                self._unanswered += 1
            return None

    def _worker_metrics(self, workers: WorkerStates) -> Iterator[Metric]:
        by_state = _FAMILIES.gauge("workers", "Workers by state", "state")
        up = sum(each.http is not None for each in workers.values())
        by_state.add_metric(["up"], up)
        by_state.add_metric(["down"], len(workers) - up)
        yield by_state
        known = workers.values()
        for name, text, count in (
            ("worker_restarts", _RESTARTED, sum(each.restarts for each in known)),
            ("workers_recycled", _RECYCLED, sum(each.recycled for each in known)),
            ("worker_replacements_failed", _NOT_REPLACED, sum(each.failures for each in known)),
            ("workers_not_scraped", _NOT_SCRAPED, self._unanswered),
        ):
            yield _FAMILIES.single_counter(name, text, count)


def metrics_of(texts: Mapping[int, str]) -> list[Metric]:
    """Return the metrics in the workers' texts, each sample with its worker as a label."""
    return merged_families(
        ({WORKER: str(index)}, text_string_to_metric_families(text))
        for index, text in texts.items()
    )
