"""Trials on a real disk, which is full, locked, damaged or killed."""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coalmine.errors import Unavailable
from coalmine_router.observer.evidence.pair import Pair
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence.trial import Trial, TrialKey
from coalmine_router.observer.evidence.trial_file import FILE, StoreLimits, TrialFile
from coalmine_router.observer.evidence.trials import TrialLimits, Trials
from coalmine_router.observer.evidence.verdict import NO_VERDICT
from tests.doubles.clock import HandClock
from tests.doubles.disk import contents
from tests.doubles.evidence import FAIL, KEY, PAIR, a_comparison
from tests.doubles.waiting import eventually

INT8 = PAIR._replace(candidate="int8")
QUICK = StoreLimits(busy_s=0.0, load_busy_s=0.0, interval_s=0.001)


class Kept:
    """Trials, and the store that keeps them."""

    def __init__(self, path: Path, limits: StoreLimits, trials: Trials) -> None:
        self.clock = HandClock()
        self.trials = trials
        self.store = EvidenceStore(path, trials, self.clock, limits)

    def compared(self, pair: Pair = PAIR, key: TrialKey = KEY, times: int = 1) -> Trial:
        for _ in range(times):
            self.clock.now_ns += 1
            trial = self.trials.obtain(pair, key, self.clock.now_ns)
            trial.evidence.add(a_comparison())
        return trial

    async def find_trials(self, candidate: str = "", limit: int = 0) -> list[int]:
        return [each.number for each in await self.store.find_trials("digits", candidate, limit)]


def anybody(_pair: Pair) -> bool:
    return True


@asynccontextmanager
async def kept(
    path: Path,
    limits: StoreLimits = QUICK,
    *,
    known: Callable[[Pair], bool] = anybody,
    trials: Trials | None = None,
) -> AsyncIterator[Kept]:
    made = Kept(path, limits, trials or Trials())
    made.clock.now_ns = 1_000
    await made.store.load(known)
    yield made
    await made.store.close()


def version(candidate: int) -> TrialKey:
    return replace(KEY, candidate_version=str(candidate))


async def test_trials_go_on_after_a_restart_with_their_evidence_and_verdict(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path / "state" / FILE) as before:
        trial = before.compared(times=3)
        before.compared(key=version(9))
        trial.verdict = FAIL
        assert await before.store.save(trial)
    async with kept(tmp_path / "state" / FILE) as after:
        first, second = after.trials.all_open("digits")
        assert first == trial
        assert second.verdict == NO_VERDICT
        assert list(after.trials.current_trials()) == [second]
        assert after.compared() is first
        assert after.compared(key=version(4)).number == 3


async def test_a_verdict_is_on_disk_once_save_returns(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as found:
        trial = found.compared()
        trial.verdict = FAIL
        assert await found.store.save(trial)
        with closing(sqlite3.connect(tmp_path / FILE)) as other:
            ((text,),) = other.execute("SELECT saved FROM trial").fetchall()
    assert json.loads(text)["verdict"]["verdict"] == "fail"


async def test_a_verdict_may_be_told_once_the_disk_was_given_it(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as found:
        trial = found.compared()
        trial.verdict = FAIL
        assert trial.shown_verdict == NO_VERDICT
        await found.store.save()
        assert trial.shown_verdict == FAIL


async def test_a_disk_that_takes_nothing_keeps_no_verdict_back(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    async with kept(tmp_path / "state" / FILE) as found:
        trial = found.compared()
        trial.verdict = FAIL
        assert not await found.store.save()
        assert trial.shown_verdict == FAIL


async def test_what_changed_is_saved_by_itself(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as found, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(found.store.run())
        found.compared(times=5)
        await eventually(lambda: saved(tmp_path) == {1: 20})
        task.cancel()


def saved(folder: Path) -> dict[int, int]:
    """Return the rows of each trial on disk, by its number."""
    with closing(sqlite3.connect(folder / FILE)) as other:
        found = other.execute("SELECT number, saved FROM trial").fetchall()
    return {number: json.loads(text)["evidence"]["rows"] for number, text in found}


async def test_an_older_state_is_never_written_over_a_newer_one(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as found, asyncio.TaskGroup() as tasks:
        for _ in range(50):
            trial = found.compared()
            tasks.create_task(found.store.save())
            found.compared()
            tasks.create_task(found.store.save(trial))
            await asyncio.sleep(0)
    assert saved(tmp_path) == {1: trial.evidence.rows}


async def test_a_pair_that_is_gone_stays_in_history_and_its_numbers_go_on(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as before:
        before.compared()
        before.compared(INT8)
    async with kept(tmp_path / FILE, known=lambda pair: pair != INT8) as without:
        assert [each.pair for each in without.trials.all_open()] == [PAIR]
        (ended,) = await without.store.find_trials("digits", "int8", 0)
        assert ended.ended_ns == 1_000
        assert ended.evidence.rows == 4
    async with kept(tmp_path / FILE) as again:
        assert again.compared(INT8).number == 2


async def test_trials_are_listed_newest_first_open_ones_and_ended_ones(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE, trials=Trials(TrialLimits(open_of_pair=2))) as found:
        for each in range(5):
            found.compared(key=version(each))
        found.compared(INT8)
        found.compared(Pair("faces", "stable", "canary"))
        assert await found.find_trials("canary") == [5, 4, 3, 2, 1]
        assert await found.find_trials() == [1, 5, 4, 3, 2, 1]
        assert await found.find_trials(limit=2) == [1, 5]
        assert await found.find_trials("nobody") == []
        ends = [each.ended_ns > 0 for each in await found.store.find_trials("digits", "canary", 0)]
        assert ends == [False, False, True, True, True]


async def test_the_history_of_a_pair_and_of_all_is_bounded(tmp_path: Path) -> None:
    limits = replace(QUICK, ended_of_pair=3, ended=5)
    async with kept(tmp_path / FILE, limits, trials=Trials(TrialLimits(open_of_pair=2))) as found:
        for each in range(9):
            found.compared(key=version(each))
        assert await found.find_trials() == [9, 8, 7, 6, 5]
        for name in "abcd":
            for each in range(4):
                found.compared(PAIR._replace(candidate=name), version(each))
        listed = await found.store.find_trials("digits", "", 100)
        assert len([each for each in listed if each.ended_ns]) == 5


# ---------------------------------------------------------------- what goes wrong


async def test_a_disk_that_takes_nothing_is_logged_once_and_evidence_grows_on(
    tmp_path: Path,
) -> None:
    with capture_logs() as logs:
        async with kept(tmp_path / FILE) as found:
            found.compared()
            with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for _ in range(3):
                    trial = found.compared()
                    assert not await found.store.save()
                assert (found.store.saves_failed, found.store.not_saved) == (3, 1)
                assert trial.evidence.rows == 16
            assert await found.store.save()
            assert found.store.not_saved == 0
            assert saved(tmp_path) == {1: 16}
    assert [each["event"] for each in logs] == ["evidence_not_saved", "evidence_saved_again"]


async def test_a_disk_that_takes_something_again_is_well_though_nothing_is_to_be_saved(
    tmp_path: Path,
) -> None:
    (tmp_path / "state").write_text("in the way")
    async with kept(tmp_path / "state" / FILE) as found:
        assert found.store.trouble()
        assert not await found.store.save()
        (tmp_path / "state").unlink()
        assert await found.store.save()
        assert found.store.trouble() == ""


async def test_a_state_folder_that_comes_back_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way")
    async with kept(folder / FILE) as found:
        found.compared()
        assert not await found.store.save()
        with pytest.raises(Unavailable, match="trials can't be read"):
            await found.find_trials()
        folder.unlink()
        assert await found.store.save()
        assert await found.find_trials() == [1]


def not_a_database(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)


def a_hole(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4_096:] = bytes(len(content) - 4_096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "why"),
    [(not_a_database, "not a database"), (a_hole, "damaged|malformed")],
)
async def test_a_file_that_cant_be_read_is_set_aside_and_evidence_begins_anew(
    tmp_path: Path, harm: Any, why: str
) -> None:
    async with kept(tmp_path / FILE) as before:
        before.compared(times=9)
    harm(tmp_path / FILE)
    harmed = (tmp_path / FILE).read_bytes()
    with capture_logs() as logs:
        async with kept(tmp_path / FILE) as found:
            assert found.compared().number == 1
            assert await found.store.save()
    assert [each["event"] for each in logs] == ["evidence_begins_anew"]
    assert any(word in logs[0]["error"] for word in why.split("|"))
    assert saved(tmp_path) == {1: 4}
    assert (tmp_path / f"{FILE}.unreadable").read_bytes() == harmed


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")


async def test_a_newer_file_is_left_as_it_is_and_evidence_stays_in_memory(tmp_path: Path) -> None:
    path = tmp_path / FILE
    async with kept(path) as before:
        before.compared(times=9)
    set_version(path, 7)
    newer = path.read_bytes()
    with capture_logs() as logs:
        async with kept(path) as found:
            trial = found.compared()
            assert not await found.store.save(trial)
            assert "schema 7 is newer" in found.store.trouble()
            with pytest.raises(Unavailable, match="newer"):
                await found.find_trials()
    assert [each["event"] for each in logs] == ["evidence_not_saved"]
    assert contents(tmp_path) == newer


async def test_what_could_not_be_read_at_the_start_is_history_once_it_can_and_not_written_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / FILE
    async with kept(path) as before:
        before.compared(times=9)
        before.compared(key=version(9))
        before.compared(INT8, times=5)
    set_version(path, 7)
    async with kept(path) as found:
        found.compared(times=2)
        found.compared(key=version(3))
        assert not await found.store.save()
        set_version(path, 1)
        assert await found.store.save()
        assert found.store.trouble() == ""
        assert [each.number for each in found.trials.all_open()] == [3, 4, 1]
        assert found.compared(key=version(4)).number == 5
        assert found.compared(INT8).evidence.rows == 24
        assert await found.store.save()
        ends = {
            (each.pair.candidate, each.number): (each.ended_ns > 0, each.evidence.rows)
            for each in await found.store.find_trials("digits", "", 0)
        }
    assert ends == {
        ("canary", 1): (True, 36),
        ("canary", 2): (True, 4),
        ("canary", 3): (False, 8),
        ("canary", 4): (False, 4),
        ("canary", 5): (False, 4),
        ("int8", 1): (False, 24),
    }


async def test_a_file_that_is_locked_at_the_start_is_read_and_written_to_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / FILE
    async with kept(path) as before:
        before.compared(times=9)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        made = Kept(path, QUICK, Trials())
        await made.store.load(anybody)
        assert made.compared().evidence.rows == 40
        assert not await made.store.save()
        assert "locked" in made.store.trouble()
    assert await made.store.save()
    await made.store.close()
    assert saved(tmp_path) == {1: 40}
    assert not (tmp_path / f"{FILE}.unreadable").exists()


async def test_a_file_that_is_damaged_while_it_is_used_is_replaced_by_what_memory_has(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path / FILE) as found:
        found.compared()
        found.compared(INT8)
        await found.store.save()
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found.compared()
            assert not await found.store.save()
        not_a_database(tmp_path / FILE)
        assert not await found.store.save()
        assert await found.store.save()
        assert await found.find_trials() == [1, 1]


def all_of_it(folder: Path) -> None:
    for each in folder.glob(f"{FILE}*"):
        each.unlink()


def its_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def the_file_alone(folder: Path) -> None:
    (folder / FILE).unlink()


def for_an_older_one(folder: Path) -> None:
    all_of_it(folder)
    TrialFile(folder / FILE, QUICK).open_known(anybody, 0)


@pytest.mark.parametrize("gone", [all_of_it, its_folder, the_file_alone, for_an_older_one])
async def test_where_the_file_is_deleted_all_open_trials_are_written_into_a_new_one(
    tmp_path: Path, gone: Callable[[Path], None]
) -> None:
    folder = tmp_path / "state"
    async with kept(folder / FILE) as found:
        found.compared(times=3)
        found.compared(INT8)
        assert await found.store.save()
        gone(folder)
        with capture_logs() as logs:
            for _ in range(3):  # nothing has changed since
                assert await found.store.save()
        assert sorted(saved_pairs(folder)) == [("canary",), ("int8",)]
        assert saved_rows(folder) == [4, 12]
    assert [each["event"] for each in logs] == ["evidence_file_gone"]
    async with kept(folder / FILE) as after:
        assert sorted(each.evidence.rows for each in after.trials.all_open()) == [4, 12]


def saved_rows(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / FILE)) as other:
        found = other.execute("SELECT saved FROM trial").fetchall()
    return sorted(json.loads(text)["evidence"]["rows"] for (text,) in found)


async def test_a_file_that_is_deleted_while_writes_fail_is_noticed_too(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as found:
        found.compared(INT8)
        await found.store.save()
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found.compared()
            assert not await found.store.save()
        all_of_it(tmp_path)
        assert await found.store.save()
        assert sorted(saved_pairs(tmp_path)) == [("canary",), ("int8",)]


async def test_one_trial_that_cant_be_read_is_logged_and_the_others_go_on(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as before:
        before.compared()
        before.compared(INT8)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.execute("UPDATE trial SET saved = '{\"format\": 1}' WHERE candidate = 'canary'")
    with capture_logs() as logs:
        async with kept(tmp_path / FILE) as after:
            assert [each.pair for each in after.trials.all_open()] == [INT8]
            assert after.compared().number == 2
    assert (logs[0]["event"], logs[0]["pair"]) == ("trial_not_read", PAIR)
    assert "turn" in logs[0]["error"]


async def test_a_full_disk_loses_nothing_that_memory_has(tmp_path: Path) -> None:
    async with kept(tmp_path / FILE) as found:
        found.compared()
        await found.store.save()
        database = found.store._file._connection
        assert database is not None
        await found.store._file.run_in_thread(lambda: database.execute("PRAGMA max_page_count = 1"))
        for each in range(200):
            found.compared(PAIR._replace(candidate=f"c{each}"))
        assert not await found.store.save()
        assert found.store.not_saved == 200
        assert await found.store.save()  # on a new connection, which has room again
        assert len(saved_pairs(tmp_path)) == 201


def saved_pairs(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / FILE)) as other:
        return other.execute("SELECT candidate FROM trial").fetchall()


_WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from dataclasses import replace
from coalmine.clock import SystemClock
from coalmine_router.observer.evidence.store import EvidenceStore
from coalmine_router.observer.evidence.trials import Trials
from tests.doubles.evidence import FAIL, KEY, PAIR, a_comparison

async def main():
    trials = Trials()
    store = EvidenceStore(Path(sys.argv[1]), trials, SystemClock())
    await store.load(lambda pair: True)
    for number in itertools.count(1):
        trial = trials.obtain(PAIR._replace(candidate=f"c{number % 50}"), KEY, number)
        trial.evidence.add(a_comparison())
        trial.verdict = replace(FAIL, at_ns=number)
        assert await store.save(trial)
        print(number, flush=True)

asyncio.run(main())
"""


def told_until_killed(path: Path, at: int) -> int:
    """Return the last verdict that a process told which was killed once it had told `at`."""
    told = 0
    command = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            told = int(line)
            if told == at:
                writer.send_signal(signal.SIGKILL)
    assert told >= at
    return told


async def test_after_kill_9_no_verdict_that_was_told_is_missing(tmp_path: Path) -> None:
    told = told_until_killed(tmp_path / FILE, 120)
    async with kept(tmp_path / FILE) as after:
        found = [each.verdict.at_ns for each in after.trials.all_open()]
    assert len(found) == 50
    assert max(found) >= told
    assert sum(each.evidence.outcomes.total() for each in after.trials.all_open()) >= told
