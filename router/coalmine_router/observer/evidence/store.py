"""Trials on disk: kept in a file, in a thread of its own.

A verdict is there before it is told to anybody; evidence about a second after it was found. What
the disk won't take is counted and tried again, and evidence goes on growing in memory.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import structlog

from coalmine.clock import Clock
from coalmine.errors import Unavailable
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.saved import Unreadable, from_text, to_text
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.trial_file import FAILURES, Row, StoreLimits, TrialFile
from coalmine_router.observer.evidence.trials import Trials
from coalmine_router.state.disk_outage import DiskOutage

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

LISTED_DEFAULT: Final = 20

Restore = Callable[[Iterable[Trial], dict[Pair, int], int], None]


class EvidenceStore:
    """Keeps `trials` in a file; `load` comes before anything else."""

    def __init__(
        self, path: Path, trials: Trials, clock: Clock, limits: StoreLimits | None = None
    ) -> None:
        self._path = path
        self._limits = limits or StoreLimits()
        self._file = TrialFile(path, self._limits)
        self._trials = trials
        self._clock = clock
        # One at a time: an older state of a trial is never written over a newer one.
        self._saving = asyncio.Lock()
        self._known: Callable[[Pair], bool] = lambda _pair: True
        # Until then nothing is written: it would take the place of what is there.
        self._is_loaded = False
        self._outage = DiskOutage(
            path, "evidence is not saved", began="evidence_not_saved", ended="evidence_saved_again"
        )
        # Saves that failed, and the trials that wait for one that doesn't.
        self.saves_failed = 0
        self.not_saved = 0

    async def load(self, known: Callable[[Pair], bool]) -> None:
        """Let the trials of `known` pairs go on; those of pairs that are gone end, as history.

        A file that is damaged is logged and set aside, and evidence begins anew. One that can't be
        written to is read, and written to later; one that can't be read either is read later.
        """
        self._known = known
        try:
            await self._load(self._trials.restore)
        except FAILURES as error:
            self._note_failure(error)
            await self._load_read_only(known)

    async def _load(self, restore: Restore) -> None:
        now_ns = self._clock.wall_ns()
        try:
            rows, numbered = await self._file.run_in_thread(
                lambda: self._file.open_known(self._known, now_ns)
            )
        except Unreadable as error:
            _log.warning("evidence_begins_anew", path=str(self._path), error=str(error))
            self._file.begin_anew()
        else:
            restore(_readable_trials(rows), numbered, now_ns)
        self._is_loaded = True

    async def _load_read_only(self, known: Callable[[Pair], bool]) -> None:
        try:
            rows, numbered = await self._file.run_in_thread(lambda: self._file.read(known))
        except FAILURES:  # for the same reason, as a rule
            return
        self._trials.restore(_readable_trials(rows), numbered, self._clock.wall_ns())
        self._is_loaded = True

    async def run(self) -> None:
        """Save what changed about once a second, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.interval_s)
            await self.save()

    async def save(self, *trials: Trial) -> bool:
        """Return whether all that changed, and `trials`, outlive a power failure from now on.

        What doesn't is counted, and saved with the next.
        """
        self._trials.mark_changed(trials)
        async with self._saving:
            await self._look_for_file()
            await self._load_late()
            taken = self._trials.take_changed()
            is_saved = False
            try:
                is_well = not taken and not self._outage.trouble
                is_saved = is_well or await self._save_rows(taken)
            finally:
                if not is_saved:
                    self._trials.mark_changed(taken)
                self.not_saved = 0 if is_saved else len(taken)
        return is_saved

    async def find_trials(self, route: str, candidate: str, limit: int) -> list[Trial]:
        """Return trials of a route, the newest first; of all candidates where that is "".

        A limit of 0 is 20. Raises Unavailable where the file can't be read.
        """
        limit = limit or LISTED_DEFAULT
        await self.save()
        rows = await self._read_in_thread(lambda: self._file.ended_trials(route, candidate, limit))
        opened = (
            each for each in self._trials.all_open(route) if candidate in {"", each.pair.candidate}
        )
        newest_first = sorted(
            [*opened, *_readable_trials(rows)], key=lambda each: (-each.began_ns, -each.number)
        )
        return newest_first[:limit]

    def trouble(self) -> str:
        """Return what is wrong with the disk, in one line; "" where nothing is."""
        return self._outage.trouble

    async def close(self) -> None:
        """Save what changed, and close the file."""
        await self.save()
        await self._file.end()

    async def _look_for_file(self) -> None:
        if await self._file.run_in_thread(self._file.is_gone):
            _log.warning("evidence_file_gone", path=str(self._path))
            self._trials.mark_changed(self._trials.all_open())
            await self._file.run_in_thread(self._file.forget)

    async def _load_late(self) -> None:
        if not self._is_loaded:
            try:
                await self._load(self._trials.restore_late)
            except FAILURES as error:
                self._note_failure(error)

    async def _save_rows(self, taken: Sequence[Trial]) -> bool:
        rows, verdicts = [], []
        for trial in taken:
            rows.append(_row_of(trial))
            verdicts.append(trial.verdict)
            # Each is whole; between them, others have their turn.
            await asyncio.sleep(0)
        is_saved = await self._try_write(rows)
        for trial, verdict in zip(taken, verdicts, strict=True):
            trial.kept = verdict
        return is_saved

    async def _try_write(self, rows: Sequence[Row]) -> bool:
        if not self._is_loaded:
            return False
        try:
            await self._file.run_in_thread(lambda: self._file.write(rows))
        except FAILURES as error:
            self._note_failure(error)
            return False
        self._outage.note_success()
        return True

    async def _read_in_thread(self, read: Callable[[], Result]) -> Result:
        try:
            return await self._file.run_in_thread(read)
        except FAILURES as error:
            raise Unavailable(f"trials can't be read: {error}") from None

    def _note_failure(self, error: Exception) -> None:
        self.saves_failed += 1
        self._outage.note_failure(error)
        if isinstance(error, Unreadable):  # damaged since: what memory has goes into a new one
            self._file.begin_anew()
            self._trials.mark_changed(self._trials.all_open())


def _row_of(trial: Trial) -> Row:
    return Row(trial.pair, trial.number, trial.began_ns, trial.ended_ns, to_text(trial))


def _readable_trials(rows: Iterable[Row]) -> Iterator[Trial]:
    for pair, number, began_ns, ended_ns, saved in rows:
        try:
            yield from_text(saved, pair, number, began_ns=began_ns, ended_ns=ended_ns)
        except Unreadable as error:
            _log.warning("trial_not_read", pair=pair, number=number, error=str(error))
