"""What was changed, for workers that start later: the file, its numbers, and whose turn it is."""

import asyncio
import json
from pathlib import Path

import pytest

from coalmine.errors import Overloaded
from coalmine_server.fleet.load_record import LoadEntry, LoadRecord, changes_since


def test_nothing_was_changed_where_there_is_no_file(tmp_path: Path) -> None:
    assert LoadRecord(tmp_path).read() == {}


def test_the_last_change_of_each_model_is_kept_with_a_number_of_its_own(tmp_path: Path) -> None:
    LoadRecord(tmp_path).record_change("digits", is_unloaded=True)
    LoadRecord(tmp_path).record_change("other", is_unloaded=True)
    LoadRecord(tmp_path).record_change("digits", is_unloaded=False)
    assert LoadRecord(tmp_path).read() == {
        "digits": LoadEntry(3, False),
        "other": LoadEntry(2, True),
    }


def test_the_file_is_whole_at_any_time(tmp_path: Path) -> None:
    LoadRecord(tmp_path).record_change("digits", is_unloaded=True)
    with (tmp_path / "changes.json").open() as before:
        LoadRecord(tmp_path).record_change("digits", is_unloaded=False)
        assert json.load(before) == {"digits": [1, True]}, "replaced, not written over"


@pytest.mark.parametrize(
    ("before", "now", "later"),
    [
        ({}, {}, []),
        ({}, {"a": LoadEntry(2, True), "b": LoadEntry(1, False)}, ["b", "a"]),
        ({"a": LoadEntry(1, True)}, {"a": LoadEntry(1, True)}, []),
        ({"a": LoadEntry(1, True)}, {"a": LoadEntry(3, True), "b": LoadEntry(2, True)}, ["b", "a"]),
    ],
)
def test_what_was_missed_is_what_came_later_in_its_order(
    before: dict[str, LoadEntry], now: dict[str, LoadEntry], later: list[str]
) -> None:
    assert list(changes_since(before, now)) == later


async def test_a_turn_is_one_workers_at_a_time(tmp_path: Path) -> None:
    first, second = LoadRecord(tmp_path), LoadRecord(tmp_path)
    async with first.take_turn(wait_s=1):
        with pytest.raises(Overloaded, match=r"another change has been under way for 0\.05 s"):
            async with second.take_turn(wait_s=0.05):
                raise AssertionError("it is the first one's turn")
    async with second.take_turn(wait_s=1):
        pass


async def test_a_turn_comes_when_the_one_before_it_ends(tmp_path: Path) -> None:
    order: list[str] = []

    async def take(name: str) -> None:
        async with LoadRecord(tmp_path).take_turn(wait_s=10):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(take(name))
    names = [each.split()[0] for each in order]
    assert names[::2] == names[1::2], "each ends before the next begins"
    assert set(names) == set("abc")
