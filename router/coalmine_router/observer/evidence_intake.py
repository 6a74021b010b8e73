"""From what was compared, and how the split went, to evidence and verdicts."""

from collections.abc import Mapping
from typing import Final

from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.evidence.address_evidence import AsksReady, ReadyAddresses, none_known
from coalmine_router.observer.evidence.betting.spells import SpellTerms
from coalmine_router.observer.evidence.cohorts import Cohorts
from coalmine_router.observer.evidence.counts import WHOLE, Events, Evidence
from coalmine_router.observer.evidence.figures import figures_of
from coalmine_router.observer.evidence.gates.all_gates import verdict_after
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.tally import Tally
from coalmine_router.observer.evidence.trial import Trial, TrialKey
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.observer.evidence.verdict import VerdictChange
from coalmine_router.observer.observed_request import ObservedRequest, PairResult, PendingEvidence
from coalmine_router.observer.route_settings import UNSET, RouteSettings
from coalmine_router.observer.split import SplitEvent, split_events
from coalmine_router.table import STABLE, Route, RouteTable, Variant

NO_SEGMENT: Final = "(none)"
_SEGMENT_CHARS_MAX: Final = 128


class EvidenceIntake:
    """Adds what is seen to the trial that it belongs to, and has that judged again."""

    def __init__(
        self,
        trials: Trials,
        tally: Tally,
        routes: Mapping[str, RouteSettings],
        clock: Clock,
        ready: AsksReady = none_known,
    ) -> None:
        self._trials = trials
        self._tally = tally
        self._routes = routes
        self._clock = clock
        self._ready = ready
        self._cohorts = Cohorts(clock.wall_ns())

    @property
    def split_left_out(self) -> int:
        """How many requests ended too late to say anything of the split."""
        return self._cohorts.left_out

    def add_assignment(self, report: pb.Report, route: Route) -> list[VerdictChange]:
        """Learn from whom the split assigned a request to, and how it went there.

        Returns the verdicts that this changed.
        """
        settings = self._routes.get(route.name, UNSET)
        changes: list[VerdictChange] = []
        for event in split_events(report, settings.slow_over_ns):
            if event.candidate not in route.by_name:
                continue  # of a table that is no longer in force
            pair = Pair(route.name, STABLE, event.candidate)
            # By this process's clock: those of proxies may differ.
            now_ns = self._clock.wall_ns()
            key = self._key(route, pair)  # such events don't tell versions
            trial = self._trials.obtain_current(pair, key, now_ns)
            is_over = _add_event(trial.evidence, event, now_ns, settings.gates.spells)
            cohorts = self._add_to_cohort(pair, event, report.started_ns, now_ns, route.timeout_ns)
            for cohort in cohorts:
                trial.evidence.assigned.add_all(cohort)
            # Fewer looks never make a verdict less sound.
            if is_over or cohorts:
                ended_ns = report.started_ns + report.duration_ns
                changes += self._judge(trial, report.trace_id, report.span_id, ended_ns)
        return changes

    def _add_to_cohort(
        self, pair: Pair, event: SplitEvent, began_ns: int, now_ns: int, timeout_ns: int
    ) -> list[Events]:
        """Take in who was assigned a request; return those that can be counted by now."""
        if not event.is_stream:
            self._cohorts.add(
                *(pair, event.weights_bp),
                is_candidate=event.is_candidate,
                began_ns=min(began_ns, now_ns),
            )
        return self._cohorts.take_complete(pair, now_ns, timeout_ns)

    def begin_changed_trials(self, table: RouteTable) -> None:
        """Begin a trial of each pair whose rules or variants are no longer those of its trial.

        Else a verdict under the settings of before would be told until something is compared.
        """
        for trial in list(self._trials.current_trials()):
            key = self._key(table.by_route[trial.pair.route], trial.pair)
            if not trial.key.has_settings_of(key):
                self._trials.obtain_current(trial.pair, key, self._clock.wall_ns())

    def open_trial(self, route: Route, sides: tuple[str, str], versions: tuple[str, str]) -> Trial:
        """Return the trial that a comparison belongs to, which may begin with it.

        `sides` are the reference and the candidate, `versions` those of their answers.
        """
        pair = Pair(route.name, *sides)
        return self._trials.obtain(pair, self._key(route, pair, *versions), self._clock.wall_ns())

    def add_comparisons(self, observed: ObservedRequest) -> list[VerdictChange]:
        """Learn from what was found of a request; return the verdicts that this changed.

        Requests come in the order of their reports: whichever answers came back first, evidence
        that one may look at any time has no other order.
        """
        changes: list[VerdictChange] = []
        for pending in observed.pending:
            result, trial = pending.result, pending.trial
            self._tally.add(trial.pair, result.comparison)
            trial.evidence.add(result.comparison, observed.segment)
            self._add_to_window(trial, result, observed)
            _add_noise(trial, result, observed)
            _add_failure(trial, pending, observed)
            _add_addresses(trial, pending)
            self._trials.mark_changed([trial])
            trace_id = observed.report.trace_id
            changes += self._judge(trial, trace_id, result.span_id, result.started_ns)
        return changes

    def _add_to_window(self, trial: Trial, result: PairResult, observed: ObservedRequest) -> None:
        terms, found = self._routes.get(trial.pair.route, UNSET).gates.windows, result.comparison
        if terms is not None and (found.is_judged or found.is_unanswered):
            share = found.share if found.is_judged else None
            now_ns, segment = self._clock.wall_ns(), observed.segment or ""
            trial.evidence.windows.add(share, segment, now_ns, terms)

    def _key(self, route: Route, pair: Pair, reference: str = "", candidate: str = "") -> TrialKey:
        settings = self._routes.get(route.name, UNSET)
        one, other = route.by_name[pair.reference], route.by_name[pair.candidate]
        definition = f"{_definition(one)}; {_definition(other)}"
        return TrialKey(settings.goes_by, definition, reference, candidate)

    def _judge(
        self, trial: Trial, trace_id: bytes, span_id: bytes, began_ns: int
    ) -> list[VerdictChange]:
        """Judge the trial by what it holds now; return the change of its verdict, if any."""
        settings = self._routes.get(trial.pair.route, UNSET)
        gates = settings.gates
        before, now_ns = trial.verdict, self._clock.wall_ns()
        ready = ReadyAddresses.of(trial.pair, self._ready)
        trial.verdict = verdict_after(
            trial.evidence, gates, before, at_ns=now_ns, trace_id=trace_id, ready=ready
        )
        if trial.verdict.verdict == before.verdict:
            return []
        change = VerdictChange(
            *trial.pair,
            before=before,
            verdict=trial.verdict,
            at_ns=now_ns,
            trial=trial.number,
            reference_version=trial.key.reference_version,
            candidate_version=trial.key.candidate_version,
            figures=figures_of(trial.evidence, gates),
            trace_id=trace_id,
            span_id=span_id,
            began_ns=began_ns,
        )
        return [change]


def segment_of(report: pb.Report, key: str) -> str | None:
    """Return the value of the segment's metadata key; None where the route has no segments."""
    if not key:
        return None
    values = (each.value for each in report.metadata if each.key == key)
    value = next(values, b"").decode(errors="replace")
    return value[:_SEGMENT_CHARS_MAX] or NO_SEGMENT


def _add_event(evidence: Evidence, event: SplitEvent, now_ns: int, terms: SpellTerms) -> bool:
    """Count what went wrong with a request; return whether a spell of such events is over."""
    kinds = evidence.errors, evidence.refusals, evidence.slow
    closed = [each.close_spell(now_ns, terms) for each in kinds]
    for events, is_one in zip(
        kinds, (event.is_error, event.is_refusal, event.is_slow), strict=True
    ):
        if is_one:
            events.add(now_ns, event.expected, is_candidate=event.is_candidate)
    return any(closed)


def _add_noise(trial: Trial, result: PairResult, observed: ObservedRequest) -> None:
    if result.noise is None:
        return
    differences = trial.evidence.add_noise(result.comparison, result.noise)
    if differences:
        means = trial.differing.add(differences, at_ns=result.started_ns, took_ns=observed.took_ns)
        if means:
            trial.evidence.add_moment(means)


def _add_failure(trial: Trial, pending: PendingEvidence, observed: ObservedRequest) -> None:
    if pending.failed is None:
        return
    trial.evidence.failures.add(float(pending.failed))
    if pending.reference_failed is None:
        return
    more = {WHOLE: float(pending.failed) - float(pending.reference_failed)}
    at_ns, took_ns = pending.result.started_ns, observed.took_ns
    for mean in trial.failing.add(more, at_ns=at_ns, took_ns=took_ns).values():
        trial.evidence.failed_more.add(mean)


def _add_addresses(trial: Trial, pending: PendingEvidence) -> None:
    result, evidence = pending.result, trial.evidence
    has_failed = bool(pending.failed)
    if not (result.comparison.is_judged or has_failed):
        return
    share, at_ns = 1.0 if has_failed else result.comparison.share, result.started_ns
    evidence.reference_addresses.add(
        result.reference_address, share, at_ns=at_ns, has_failed=has_failed
    )
    evidence.candidate_addresses.add(
        result.candidate_address, share, at_ns=at_ns, has_failed=has_failed
    )


def _definition(variant: Variant) -> str:
    return f"{variant.backend} {variant.model} {variant.version}"
