"""Trials: evidence adds up as long as models and rules stay what they are. Pure.

While versions are rolled, answers of the old and of the new one arrive mixed. Each goes to the
trial of its own version, so none flaps; what is told of a pair is its current trial.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from coalmine_router.observer.evidence.pair import PAIRS_MAX, Pair
from coalmine_router.observer.evidence.trial import Trial, TrialKey


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """`resumed_after`: comparisons of an older trial, with none of the current one among them."""

    pairs: int = PAIRS_MAX
    open_of_pair: int = 8
    resumed_after: int = 50
    # Ended ones that are not on disk yet; over it the oldest are forgotten.
    ended_waiting: int = 256


@dataclass(slots=True)
class _OfPair:
    """The open trials of a pair, the least recently used first."""

    current: Trial
    open: list[Trial]
    # Of other trials: comparisons since the last one of the current.
    since: dict[int, int] = field(default_factory=dict)
    numbered: int = 0
    turns: int = 0


class Trials:
    """All trials that are open to evidence.

    What `of` and `current` return counts as changed: evidence is added to it before anything is
    awaited. Reading from another thread is safe.
    """

    def __init__(self, limits: TrialLimits | None = None) -> None:
        self._limits = limits or TrialLimits()
        self._pairs: dict[Pair, _OfPair] = {}
        self._numbered: dict[Pair, int] = {}
        self._changed: dict[tuple[Pair, int], Trial] = {}
        # Evidence of pairs over the bound, and ended trials that could not wait for the disk.
        self.left_out = 0
        self.forgotten = 0

    # ------------------------------------------------------------ where evidence goes

    def obtain(self, pair: Pair, key: TrialKey, now_ns: int) -> Trial:
        """Return the trial that a comparison under `key` belongs to; it may begin with it.

        An older one becomes the current one again once it alone gets comparisons: a rollback.
        """
        key = key.with_bounded_versions()
        found = self._pairs.get(pair)
        if found is None:
            return self._mark_changed(self._begin_first(pair, key, now_ns))
        trial = _trial_of_key(found, key)
        if trial is None:
            trial = self._begin_next(found, pair, key, now_ns)
        else:
            self._note_comparison(found, trial, key)
        return self._mark_changed(trial)

    def obtain_current(self, pair: Pair, key: TrialKey, now_ns: int) -> Trial:
        """Return the trial that an event of the split belongs to: the current one.

        `key` has no versions: such events don't tell them.
        """
        found = self._pairs.get(pair)
        if found is None:
            return self._mark_changed(self._begin_first(pair, key, now_ns))
        if found.current.key.has_settings_of(key):
            return self._mark_changed(found.current)
        trial = _trial_of_key(found, key)
        if trial is None:
            trial = self._begin_next(found, pair, key, now_ns)
        else:
            _make_current(found, trial)
        return self._mark_changed(trial)

    def _begin_first(self, pair: Pair, key: TrialKey, now_ns: int) -> Trial:
        if len(self._pairs) >= self._limits.pairs:
            self.left_out += 1
            return Trial(pair, key, 0, now_ns, "first")
        numbered = self._numbered.pop(pair, 0) + 1
        trial = Trial(pair, key, numbered, now_ns, "first", turn=1)
        self._pairs[pair] = _OfPair(trial, [trial], numbered=numbered, turns=1)
        return trial

    def _begin_next(self, found: _OfPair, pair: Pair, key: TrialKey, now_ns: int) -> Trial:
        why = key.first_difference(found.current.key)
        found.numbered += 1
        trial = Trial(pair, key, found.numbered, now_ns, why)
        self._add_open(found, trial, now_ns)
        _make_current(found, trial)
        return trial

    def _note_comparison(self, found: _OfPair, trial: Trial, key: TrialKey) -> None:
        trial.key = trial.key.with_versions_of(key)
        if trial is found.current:
            # One that doesn't say its version may be anybody's: it doesn't speak for the current.
            if key == trial.key:
                found.since.clear()
            return
        _move_to_end(found, trial)
        since = found.since[trial.number] = found.since.get(trial.number, 0) + 1
        # Settings are this process's own, so those of the current one are gone for good.
        gone = not found.current.key.has_settings_of(key)
        if gone or since >= self._limits.resumed_after:
            _make_current(found, trial)

    def _add_open(self, found: _OfPair, trial: Trial, now_ns: int) -> None:
        if len(found.open) >= self._limits.open_of_pair:
            self._end_oldest(found, now_ns)
        found.open.append(trial)

    def _end_oldest(self, found: _OfPair, now_ns: int) -> None:
        trial = next(each for each in found.open if each is not found.current)
        found.open.remove(trial)
        found.since.pop(trial.number, None)
        trial.ended_ns = now_ns
        self._mark_changed(trial)
        ended = [name for name, each in self._changed.items() if each.ended_ns]
        for name in ended[: -self._limits.ended_waiting]:
            del self._changed[name]
            self.forgotten += 1

    # ------------------------------------------------------------ what is open

    def all_open(self, route: str | None = None) -> Iterator[Trial]:
        """Return all open trials, or those of one route."""
        for pair, found in list(self._pairs.items()):
            if route is None or pair.route == route:
                yield from list(found.open)

    def current_trials(self, route: str | None = None) -> Iterator[Trial]:
        """Return the current trial of each pair, or of those of one route; oldest pairs first."""
        for pair, found in list(self._pairs.items()):
            if route is None or pair.route == route:
                yield found.current

    # ------------------------------------------------------------ to the disk, and back

    def take_changed(self) -> list[Trial]:
        """Return what changed since it was last taken, and still has to be kept."""
        taken = list(self._changed.values())
        self._changed.clear()
        return taken

    def mark_changed(self, trials: Iterable[Trial]) -> None:
        """Note that these were taken, and not kept."""
        for trial in trials:
            self._mark_changed(trial)

    def restore(self, trials: Iterable[Trial], numbered: dict[Pair, int], now_ns: int) -> None:
        """Go on with trials that were open; of other pairs, only numbers go on: after `numbered`.

        Bounds are the same: what is over them ends, or is left out.
        """
        self._numbered.update(numbered)
        for trial in sorted(trials, key=lambda each: each.turn):
            found = self._pairs.get(trial.pair)
            if found is not None:
                self._add_open(found, trial, now_ns)
                found.current, found.turns = trial, trial.turn
            elif len(self._pairs) < self._limits.pairs:
                last = self._numbered.pop(trial.pair, trial.number)
                self._pairs[trial.pair] = _OfPair(trial, [trial], {}, last, trial.turn)
            else:
                self.left_out += 1

    def restore_late(self, trials: Iterable[Trial], numbered: dict[Pair, int], now_ns: int) -> None:
        """Do the same for trials that could not be read when evidence began to come.

        A pair that has evidence by now keeps that, by the numbers after the older trials', which
        end.
        """
        begun = set(self._pairs)
        changed = self.take_changed()
        for pair in begun & numbered.keys():
            _renumber(
                self._pairs[pair], [each for each in changed if each.pair == pair], numbered[pair]
            )
        known = list(trials)
        for trial in known:
            if trial.pair in begun:
                trial.ended_ns = now_ns
                changed.append(trial)
        self.mark_changed(changed)
        others = {pair: number for pair, number in numbered.items() if pair not in begun}
        self.restore([each for each in known if each.pair not in begun], others, now_ns)

    def _mark_changed(self, trial: Trial) -> Trial:
        if trial.number:
            self._changed[trial.pair, trial.number] = trial
        return trial


def _trial_of_key(found: _OfPair, key: TrialKey) -> Trial | None:
    """Return the trial of `key`; where versions are not known, the latest that may be it."""
    if found.current.key == key:
        return found.current
    latest_first = [found.current, *(each for each in reversed(found.open))]
    exact = (each for each in latest_first if each.key == key)
    fitting = (each for each in latest_first if each.key.fits(key))
    return next(exact, None) or next(fitting, None)


def _renumber(found: _OfPair, changed: list[Trial], after: int) -> None:
    """Let the numbers of a pair's trials, be they open or ended, begin after another one."""
    for trial in {id(each): each for each in (*found.open, *changed)}.values():
        trial.number += after
    found.numbered += after
    found.since = {number + after: count for number, count in found.since.items()}


def _move_to_end(found: _OfPair, trial: Trial) -> None:
    found.open.remove(trial)
    found.open.append(trial)


def _make_current(found: _OfPair, trial: Trial) -> None:
    found.turns += 1
    trial.turn = found.turns
    found.current = trial
    found.since.clear()
