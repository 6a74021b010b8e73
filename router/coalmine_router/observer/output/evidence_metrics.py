"""Prometheus metrics of comparisons, trials and verdicts, collected when they are scraped.

Counters cover the process's life, across trials; gauges cover the current trials. The HTTP thread
runs this. Other threads only ever add to the counts, which are copied before they are read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coalmine.process.metric_families import MetricFamilies
from coalmine_router.observer.comparison.comparer import ComparingCounts
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.evidence.verdict import Word

_FAMILIES: Final = MetricFamilies("coalmine_router")
_PAIR: Final = ("route", "reference", "candidate")
_WORDS: Final[Mapping[Word, int]] = {"pass": 1, "inconclusive": 0, "fail": -1}


class SaveCounts(Protocol):
    """How saving trials went; EvidenceStore counts it."""

    saves_failed: int
    not_saved: int


class EvidenceMetrics(Collector):
    """Metrics of comparisons, of the verdicts from them, and of saving them."""

    def __init__(
        self,
        *,
        tally: Tally,
        trials: Trials,
        comparing: Callable[[], ComparingCounts],
        warnings: Callable[[], Mapping[tuple[str, str], int]],
        saves: SaveCounts,
        split_left_out: Callable[[], int],
        out_of_turn: Callable[[], int],
    ) -> None:
        self._tally = tally
        self._trials = trials
        self._comparing = comparing
        self._warnings = warnings
        self._saves = saves
        self._split_left_out = split_left_out
        self._out_of_turn = out_of_turn

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._pair_metrics()
        yield from self._output_metrics()
        yield from self._verdict_metrics()
        yield from self._backlog_metrics()
        yield self._warning_counts()
        yield from self._saving_metrics()

    def _pair_metrics(self) -> Iterator[Metric]:
        pairs = _FAMILIES.counter("comparisons", "Answers compared", *_PAIR, "outcome")
        kinds = _FAMILIES.counter(
            "comparison_kinds", "Comparisons that didn't match", *_PAIR, "kind"
        )
        for pair, found in self._tally.pairs():
            for outcome, count in list(found.outcomes.items()):
                pairs.add_metric([*pair, outcome], count)
            for kind, count in list(found.kinds.items()):
                kinds.add_metric([*pair, kind], count)
        yield pairs
        yield kinds

    def _output_metrics(self) -> Iterator[Metric]:
        outputs = _FAMILIES.counter(
            "output_comparisons", "Outputs compared", *_PAIR, "output", "outcome"
        )
        for pair, found in self._tally.pairs():
            for name, outcomes in list(found.outputs.items()):
                counts = {"match": 0, "mismatch": 0, **outcomes}
                for outcome, count in counts.items():
                    outputs.add_metric([*pair, name, outcome], count)
        yield outputs

    def _verdict_metrics(self) -> Iterator[Metric]:
        verdict = _FAMILIES.gauge("verdict", "1: pass; 0: inconclusive; -1: fail", *_PAIR)
        share = _FAMILIES.gauge(
            "mismatch_ratio", "Of a request's rows, in the mean; this trial", *_PAIR
        )
        number = _FAMILIES.gauge("trial", "The number of the current trial", *_PAIR)
        for trial in self._trials.current_trials():
            verdict.add_metric(trial.pair, _WORDS[trial.shown_verdict.verdict])
            number.add_metric(trial.pair, trial.number)
            if trial.evidence.shares.requests:
                share.add_metric(trial.pair, trial.evidence.shares.mean)
        yield verdict
        yield share
        yield number

    def _backlog_metrics(self) -> Iterator[Metric]:
        now = self._comparing()
        yield _FAMILIES.single_gauge(
            "comparing_ratio", "Of exchanges, how many are compared", now.share_bp / 1e4
        )
        yield _FAMILIES.single_gauge(
            "comparing_waiting", "Exchanges that wait to be compared", now.waiting
        )
        yield _FAMILIES.single_gauge(
            "comparing_waiting_bytes", "The bytes of those", now.waiting_bytes
        )
        yield _FAMILIES.single_gauge("comparing_processes", "Processes that compare", now.processes)
        yield _FAMILIES.single_counter("exchanges_compared", "Exchanges compared", now.compared)
        yield _FAMILIES.single_counter(
            "exchanges_left_out", "Exchanges given up for want of time", now.left_out
        )

    def _warning_counts(self) -> Metric:
        family = _FAMILIES.counter(
            "comparing_warnings", "What comparing warned of", "route", "kind"
        )
        for key, count in self._warnings().items():
            family.add_metric(key, count)
        return family

    def _saving_metrics(self) -> Iterator[Metric]:
        saves, trials = self._saves, self._trials
        yield _FAMILIES.single_gauge(
            "evidence_not_saved", "Trials that the disk didn't take", saves.not_saved
        )
        yield _FAMILIES.single_counter(
            "evidence_saves_failed", "Saves that the disk didn't take", saves.saves_failed
        )
        yield _FAMILIES.single_counter(
            "evidence_left_out", "Evidence of pairs over the bound", trials.left_out
        )
        yield _FAMILIES.single_counter(
            "split_requests_left_out", "Requests too late to count", self._split_left_out()
        )
        yield _FAMILIES.single_counter(
            "exchanges_out_of_turn", "Exchanges learnt from behind later ones", self._out_of_turn()
        )
        yield _FAMILIES.single_counter(
            "trials_forgotten", "Ended trials that found no disk", trials.forgotten
        )
