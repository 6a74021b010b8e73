"""Workers of one server: changes reach all, figures are of all, and who comes later catches up."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import LoadFailed, NotFound, PartlyDone
from coalmine_server.fleet.load_record import LoadRecord
from coalmine_server.fleet.member import RecordingFollower
from coalmine_server.fleet.worker_slot import WorkerSlot
from tests.doubles.workers import Control, Worker, joined


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder with a short path: that of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def test_a_change_is_made_in_every_worker(folder: Path) -> None:
    async with joined(folder, 3) as workers:
        await workers[1].loading.load("m")
        await workers[2].loading.unload("m")
        assert [each.control.done for each in workers] == [["load m", "unload m"]] * 3
    assert [name for name, each in LoadRecord(folder).read().items() if each.is_unloaded] == ["m"]


async def test_a_change_that_fails_where_it_is_asked_for_reaches_nobody(folder: Path) -> None:
    async with joined(folder, 2) as workers:
        workers[0].control.fails = LoadFailed("model 'm': no")
        with pytest.raises(LoadFailed, match="model 'm': no"):
            await workers[0].loading.load("m")
        assert workers[1].control.done == []
    assert LoadRecord(folder).read() == {}


async def test_a_change_that_fails_elsewhere_names_the_worker_and_what_was_done(
    folder: Path,
) -> None:
    async with joined(folder, 3) as workers:
        workers[1].control.fails = LoadFailed("model 'm': out of memory")
        with pytest.raises(PartlyDone) as caught:
            await workers[0].loading.load("m")
    assert str(caught.value) == (
        "model 'm': changed in worker 0, 2, not in all; ask again. "
        "worker 1: model 'm': out of memory"
    )


async def test_a_change_that_cannot_be_written_down_is_made_and_says_so(folder: Path) -> None:
    async with joined(folder, 2) as workers:
        (folder / "changes.json.new").mkdir()  # where the file is written first
        with pytest.raises(PartlyDone, match="one that starts later won't know: is a directory"):
            await workers[0].loading.load("m")
        assert [each.control.done for each in workers] == [["load m"]] * 2


async def test_one_that_is_down_holds_nobody_up_and_catches_up_when_it_is_back(
    folder: Path,
) -> None:
    first, second = (Worker(folder, index, 2) for index in range(2))
    async with first.join():
        await first.loading.unload("old")
        assert second.member.read_unloaded_models() == {"old"}
        with capture_logs() as logs:  # while the second one reads its models
            await first.loading.unload("m")
            await first.loading.load("n")
        assert {each["event"] for each in logs} == {"worker_not_told"}
        async with second.join():
            assert second.control.done == ["unload m", "load n"]
            await first.loading.load("old")
            assert second.control.done[2:] == ["load old"]


async def test_what_cannot_be_caught_up_with_is_logged(folder: Path) -> None:
    first, second = (Worker(folder, index, 2) for index in range(2))
    second.member.read_unloaded_models()
    async with first.join():
        await first.loading.unload("m")
        second.control.fails = NotFound("model 'm' is unknown")
        with capture_logs() as logs:
            async with second.join():
                pass
    assert [(each["event"], each["model"]) for each in logs] == [("change_not_followed", "m")]


async def test_a_version_is_ready_only_where_it_is_so_in_all(folder: Path) -> None:
    async with joined(folder, 2) as workers:
        workers[1].known.state = "LOADING"
        for each in workers:
            [row] = await each.overview.index()
            assert (row.state, row.reason) == ("LOADING", "worker 1: LOADING")


async def test_statistics_are_sums(folder: Path) -> None:
    async with joined(folder, 3) as workers:
        workers[2].known.successes = 40
        [total] = await workers[0].overview.statistics("m", "")
        assert total.inference_count == 42


async def test_the_part_of_one_that_does_not_answer_is_missing_and_logged(folder: Path) -> None:
    first = Worker(folder, 0, 2)
    async with first.join():
        with capture_logs() as logs:
            [total] = await first.overview.statistics("m", "")
    assert total.inference_count == 1
    assert [(each["event"], each["peer"]) for each in logs] == [("worker_did_not_answer", 1)]


async def test_a_model_that_comes_back_by_the_disk_is_unloaded_no_more(folder: Path) -> None:
    record, control = LoadRecord(folder), Control()
    record.record_change("m", is_unloaded=True)
    followed = RecordingFollower(control, record)
    await followed.load("m")
    await followed.load("n")
    await followed.remove("n")
    assert control.done == ["load m", "load n", "remove n"]
    assert {name: each.is_unloaded for name, each in record.read().items()} == {"m": False}


def test_who_has_lost_its_slot_knows_of_its_successor(folder: Path) -> None:
    slot = WorkerSlot(1, 3, 1, folder)
    assert slot.others() == (0, 2), "nobody has it yet"
    slot.take_over()
    assert slot.others() == (0, 2)
    fresh = folder / "fresh"
    fresh.symlink_to(folder / "1-another.sock")  # as a process does that takes it
    fresh.replace(folder / "1.sock")
    assert slot.others() == (0, 2, 1)


def test_a_slot_is_held_while_another_process_that_lives_has_it(folder: Path) -> None:
    slot = WorkerSlot(1, 3, 1, folder)
    assert not slot.is_taken_by_another(), "nobody has it yet"
    slot.take_over()
    assert not slot.is_taken_by_another(), "it is ours"
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as other:
        (folder / "1.sock").unlink()
        (folder / "1.sock").symlink_to(folder / f"1-{other.pid}.sock")
        assert slot.is_taken_by_another()
        assert other.stdin is not None
        other.stdin.close()
    assert not slot.is_taken_by_another(), "it has died"


async def test_a_change_reaches_who_has_taken_the_slot_of_whom_it_was_asked(folder: Path) -> None:
    leaving, other = (Worker(folder, index, 2) for index in range(2))
    successor = Worker(folder, 2, 3)  # of a third slot, to have a socket of its own
    async with leaving.join(), other.join(), successor.join():
        (folder / "0.sock").unlink()
        (folder / "0.sock").symlink_to((folder / "2.sock").readlink())
        await leaving.loading.unload("m")
    assert successor.control.done == other.control.done == ["unload m"]
