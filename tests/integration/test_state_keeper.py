"""The state over real files: damaged, newer, gone, locked, and usable again."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import StartError
from coalmine_router.control.keeper import StateKeeper
from coalmine_router.control.plan import Wish, WishedWeights, plan
from coalmine_router.control.route_history import Change
from coalmine_router.control.state_file import FILE, LAYOUT, StateUnusable
from coalmine_router.snapshot import table_message
from coalmine_router.state.saved_table import FILE as TABLE_FILE
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.waiting import eventually

AGAIN_S = 0.01
CANARY = {"stable": 0, "canary": 10_000}
BY_THE_FILE = {"stable": 10_000, "canary": 0}


def a_route(name: str) -> Route:
    variants = (Variant("stable", "blue", weight_bp=10_000), Variant("canary", "blue"))
    return Route(name, Match(name), variants)


def configured(*routes: str) -> RouteTable:
    return RouteTable(0, (Backend("blue", ("b:1",)),), tuple(map(a_route, routes or ("digits",))))


@contextlib.asynccontextmanager
async def kept(folder: Path, table: RouteTable | None = None) -> AsyncIterator[StateKeeper]:
    keeper = await StateKeeper.open(folder, table or configured(), SystemClock(), again_s=AGAIN_S)
    running = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await keeper.close()


async def give(keeper: StateKeeper, canary_bp: int, route: str = "digits") -> int:
    """Change the weights as the conductor does; return the revision."""
    await keeper.ensure_usable()
    made = plan(keeper.current.table, Wish(route, WishedWeights({"canary": canary_bp}), "ada"))
    if made.is_unchanged:
        return made.after.revision
    await keeper.append([made.change(1)])
    keeper.current.swap(made.after)
    return made.after.revision


def weights(keeper: StateKeeper, route: str = "digits") -> dict[str, int]:
    return dict(keeper.current.table.route(route).weights_bp)


def saved(folder: Path) -> pb.RouteTable:
    try:
        return pb.RouteTable.FromString((folder / TABLE_FILE).read_bytes())
    except FileNotFoundError:
        return pb.RouteTable()


async def promoted(folder: Path) -> int:
    """Leave a state in which the canary has all, and the table saved; return the revision."""
    async with kept(folder) as keeper:
        for share in (10, 100, 10_000):
            revision = await give(keeper, share)
        await eventually(lambda: saved(folder).revision == revision)
    return revision


def set_aside(folder: Path) -> list[Path]:
    return list(folder.glob(f"{FILE}.damaged-*Z"))


def drafts(folder: Path) -> list[Path]:
    return list(folder.glob(f"{TABLE_FILE}.*"))


async def reasons(keeper: StateKeeper, route: str = "digits") -> list[str]:
    return [each.reason for each in await keeper.history(route, 10)]


# ---------------------------------------------------------------- what is lost


def not_a_database(file: Path) -> None:
    file.write_bytes(b"not a database" * 1_000)


def a_hole(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4_096] + bytes(len(content) - 4_096))


def an_entry_nobody_can_read(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("UPDATE changes SET after = '[' WHERE revision = 4")


def without_its_table(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("DROP TABLE changes")


@pytest.mark.parametrize(
    "harm", [not_a_database, a_hole, an_entry_nobody_can_read, without_its_table]
)
async def test_a_damaged_history_is_set_aside_and_begun_anew_from_the_table_that_was_served(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    revision = await promoted(tmp_path)
    harm(tmp_path / FILE)
    harmed = (tmp_path / FILE).read_bytes()
    with capture_logs() as logs:
        async with kept(tmp_path) as keeper:
            assert weights(keeper) == CANARY
            assert keeper.current.table.revision == revision + 1
            assert keeper.troubles() == []
            (why,) = await reasons(keeper)
            assert await give(keeper, 5_000) == revision + 2
    (aside,) = set_aside(tmp_path)
    assert len(aside.read_bytes()) == len(harmed)
    assert why.startswith("the history was damaged: ")
    assert f"is set aside as {aside.name}" in why
    assert why.endswith(f"taken from the table that was served, revision {revision}")
    assert [each["to"] for each in logs if each["event"] == "state_set_aside"] == [aside.name]


def empty(folder: Path) -> None:
    (folder / FILE).write_bytes(b"")


def removed(folder: Path) -> None:
    (folder / FILE).unlink()


@pytest.mark.parametrize("harm", [empty, removed])
async def test_a_history_that_is_lost_begins_anew_from_the_table_that_was_served(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    revision = await promoted(tmp_path)
    harm(tmp_path)
    async with kept(tmp_path) as keeper:
        assert (weights(keeper), keeper.current.table.revision) == (CANARY, revision + 1)
        assert (await reasons(keeper))[0].startswith("the history was lost; taken from the table")


async def test_a_history_older_than_the_table_that_was_served_takes_over_what_it_lacks(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as keeper:
        await give(keeper, 10)
    older = (tmp_path / FILE).read_bytes()
    revision = await promoted(tmp_path)
    (tmp_path / FILE).write_bytes(older)
    async with kept(tmp_path) as keeper:
        assert (weights(keeper), keeper.current.table.revision) == (CANARY, revision + 1)
        newest, *before = await reasons(keeper)
        assert newest.startswith("the history ended at revision 2; taken from the table")
        assert len(before) == 2
    async with kept(tmp_path) as keeper:
        assert keeper.current.table.revision == revision + 1


async def test_a_history_newer_than_the_saved_table_is_right(tmp_path: Path) -> None:
    await promoted(tmp_path)
    older = (tmp_path / TABLE_FILE).read_bytes()
    async with kept(tmp_path) as keeper:
        revision = await give(keeper, 5_000)
    (tmp_path / TABLE_FILE).write_bytes(older)
    async with kept(tmp_path) as keeper:
        assert keeper.current.table.revision == revision
        assert weights(keeper) == {"stable": 5_000, "canary": 5_000}


async def test_where_neither_history_nor_table_can_be_read_the_file_is_begun_with(
    tmp_path: Path,
) -> None:
    await promoted(tmp_path)
    not_a_database(tmp_path / FILE)
    (tmp_path / TABLE_FILE).write_bytes(b"\xff\xff")
    async with kept(tmp_path) as keeper:
        assert (weights(keeper), keeper.current.table.revision) == (BY_THE_FILE, 1)
        assert "no table was saved: begun by the file" in (await reasons(keeper))[0]


async def test_a_route_that_the_saved_table_lacks_is_new_and_one_that_is_gone_has_left(
    tmp_path: Path,
) -> None:
    revision = await promoted(tmp_path)
    not_a_database(tmp_path / FILE)
    async with kept(tmp_path, configured("faces")) as keeper:
        assert list(keeper.current.table.by_route) == ["faces"]
        assert keeper.current.table.revision == revision + 2
        assert (await reasons(keeper))[0].endswith("the route is gone")
        assert (await reasons(keeper, "faces"))[0].endswith("new route")


# ---------------------------------------------------------------- what can't be used


def newer(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as database:
        database.execute(f"PRAGMA user_version = {LAYOUT.version + 98}")


def older_again(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as database:
        database.execute(f"PRAGMA user_version = {LAYOUT.version}")


def in_the_way(folder: Path) -> None:
    (folder / FILE).rename(folder / "moved")
    (folder / FILE).mkdir()


def out_of_the_way(folder: Path) -> None:
    (folder / FILE).rmdir()
    (folder / "moved").rename(folder / FILE)


@pytest.mark.parametrize(
    ("harm", "mend", "why"),
    [
        (newer, older_again, f"schema {LAYOUT.version + 98} is newer"),
        (in_the_way, out_of_the_way, "is a directory"),
    ],
)
async def test_without_a_state_the_last_table_is_served_and_changes_are_refused_until_it_is_back(
    harm: Callable[[Path], None], mend: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    revision = await promoted(tmp_path)
    harm(tmp_path)
    with capture_logs() as logs:
        async with kept(tmp_path) as keeper:
            assert (weights(keeper), keeper.current.table.revision) == (CANARY, revision)
            assert not keeper.is_usable
            for refused in (give(keeper, 5_000), keeper.history("digits", 1)):
                with pytest.raises(StateUnusable, match=why):
                    await refused
            (trouble,) = keeper.troubles()
            assert trouble.startswith(f"{tmp_path}/{FILE}: takes no changes: ")
            assert trouble.endswith(
                f"; serves by the last table that was saved, revision {revision}"
            )
            mend(tmp_path)
            await eventually(lambda: keeper.is_usable)
            assert (weights(keeper), keeper.current.table.revision) == (CANARY, revision)
            assert keeper.troubles() == []
            assert await give(keeper, 5_000) == revision + 1
    told = [each for each in logs if each["event"].startswith("state_")]
    assert [(each["event"], each["log_level"]) for each in told] == [
        ("state_unusable", "error"),
        ("state_usable_again", "info"),
    ]


async def test_a_file_that_was_changed_waits_until_the_state_is_back(tmp_path: Path) -> None:
    revision = await promoted(tmp_path)
    newer(tmp_path)
    async with kept(tmp_path, configured("digits", "faces")) as keeper:
        assert list(keeper.current.table.by_route) == ["digits"]
        assert keeper.troubles()[0].endswith(
            "the configuration file says otherwise, and has to wait"
        )
        older_again(tmp_path)
        await eventually(lambda: keeper.is_usable)
        assert weights(keeper) == CANARY
        assert weights(keeper, "faces") == BY_THE_FILE
        assert keeper.current.table.revision == revision + 1


async def test_a_first_start_without_a_state_serves_by_the_file_and_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / FILE).mkdir()
    async with kept(tmp_path) as keeper:
        assert (weights(keeper), keeper.current.table.revision) == (BY_THE_FILE, 1)
        assert keeper.current.is_provisional
        assert keeper.troubles()[0].endswith("serves by the configuration file: no table was saved")
        (tmp_path / FILE).rmdir()
        await eventually(lambda: keeper.is_usable)
        assert (weights(keeper), keeper.current.table.revision) == (BY_THE_FILE, 1)
        assert not keeper.current.is_provisional
        await eventually(lambda: saved(tmp_path).revision == 1)


async def test_a_table_by_the_file_is_never_saved_as_the_last_and_makes_way_for_the_state(
    tmp_path: Path,
) -> None:
    await promoted(tmp_path)
    (tmp_path / TABLE_FILE).unlink()
    in_the_way(tmp_path)
    async with kept(tmp_path) as keeper:
        assert weights(keeper) == BY_THE_FILE
        assert saved(tmp_path) == pb.RouteTable()
        out_of_the_way(tmp_path)
        await eventually(lambda: keeper.is_usable)
        assert weights(keeper) == CANARY
        assert (await reasons(keeper))[0] == "the state can be used again"


async def test_a_change_after_the_disk_is_back_waits_for_nothing(tmp_path: Path) -> None:
    revision = await promoted(tmp_path)
    in_the_way(tmp_path)
    keeper = await StateKeeper.open(tmp_path, configured(), SystemClock())
    out_of_the_way(tmp_path)
    assert await give(keeper, 1) == revision + 1
    await keeper.close()


def remove_whole(folder: Path) -> None:
    """Remove a folder in which files come and go."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("remove", [lambda folder: (folder / FILE).unlink(), remove_whole])
async def test_a_state_removed_under_a_running_router_is_written_again_and_still_its_own(
    remove: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    async with kept(folder) as keeper:
        revision = await give(keeper, 10_000)
        remove(folder)
        assert await give(keeper, 5_000) == revision + 2
        assert (await reasons(keeper))[1].startswith("the history was lost; taken from the table")
        assert "in use by another router" in await refusal(folder)
        await eventually(lambda: saved(folder).revision == revision + 2)
    async with kept(folder) as keeper:
        assert weights(keeper) == {"stable": 5_000, "canary": 5_000}


async def test_a_table_that_the_disk_does_not_take_is_told_and_saved_later(tmp_path: Path) -> None:
    async with kept(tmp_path) as keeper:
        await eventually(lambda: saved(tmp_path).revision == 1)
        (tmp_path / TABLE_FILE).unlink()
        (tmp_path / TABLE_FILE).mkdir()
        await give(keeper, 1)
        await eventually(lambda: len(keeper.troubles()) == 1)
        assert keeper.troubles()[0].startswith(f"{tmp_path}/{TABLE_FILE}: is not saved: ")
        (tmp_path / TABLE_FILE).rmdir()
        await eventually(lambda: saved(tmp_path) == table_message(keeper.current.table))
        assert keeper.troubles() == []
        assert drafts(tmp_path) == []


# ---------------------------------------------------------------- what is refused


async def refusal(folder: Path) -> str:
    with pytest.raises(StartError) as caught:
        await StateKeeper.open(folder, configured(), SystemClock())
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_two_routers_cannot_share_a_state(tmp_path: Path) -> None:
    async with kept(tmp_path):
        assert "in use by another router" in await refusal(tmp_path)
    async with kept(tmp_path):
        pass


async def test_a_folder_at_a_place_where_none_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "not a directory" in await refusal(tmp_path / "file" / "state")
    assert "file exists" in await refusal(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_may_not_be_made_is_refused_one_that_is_there_serves_without(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o500)

    assert "permission denied" in await refusal(folder / "below")
    async with kept(folder) as keeper:
        assert "permission denied" in keeper.troubles()[0]


async def test_a_saved_split_that_no_longer_fits_the_configuration_is_refused(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as keeper:
        first: list[Change] = await keeper.history("digits", 1)
        assert first[0].revision == 1
    with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.execute("UPDATE changes SET after = replace(after, '0}', '20000}')")

    assert "can't be taken up" in await refusal(tmp_path)
