"""The history on disk: real files, and processes killed in the middle of a commit."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coalmine.errors import Unavailable
from coalmine_router.control.history_store import Store
from coalmine_router.control.route_history import Change, Split
from coalmine_router.control.state_file import FILE, LAYOUT, StateDamaged, StateUnusable

COMMITS_FOREVER = """
import asyncio, pathlib, sys
from coalmine_router.control.route_history import Change, Split
from coalmine_router.control.history_store import Store

async def main(folder):
    store = await Store.open(folder)
    newest = await store.newest_changes()
    revision = max((each.revision for each in newest.values()), default=0)
    while True:
        revision += 1
        split = Split({"stable": 10_000 - revision % 100, "canary": revision % 100})
        await store.append(
            [Change(revision, "digits", revision, "me", "", "weights", split, split, "d")]
        )
        print(revision, flush=True)

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def change(revision: int, route: str = "digits", weight_bp: int = 100) -> Change:
    return Change(
        revision=revision,
        route=route,
        at_ns=revision * 10,
        actor="ada",
        reason="because",
        action="weights",
        before=Split({"stable": 10_000, "canary": 0}),
        after=Split({"stable": 10_000 - weight_bp, "canary": weight_bp}, {"int8": 1}),
        definition="d",
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    (tmp_path / "state").mkdir()
    store = await Store.open(tmp_path / "state")
    yield store
    await store.close()


async def refusal(folder: Path, kind: type[StateUnusable] = StateUnusable) -> str:
    with pytest.raises(StateUnusable) as caught:
        await Store.open(folder)
    text = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- what is kept


async def test_what_was_appended_is_read_again_after_a_restart(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.append([change(1), change(2, "faces")])
    await store.append([change(3, weight_bp=300)])
    await store.close()
    store = await Store.open(tmp_path)

    assert await store.history("digits", 10) == [change(3, weight_bp=300), change(1)]
    assert await store.newest_changes() == {
        "faces": change(2, "faces"),
        "digits": change(3, weight_bp=300),
    }
    await store.close()


async def test_the_history_is_cut_after_the_newest(store: Store) -> None:
    await store.append([change(revision) for revision in range(1, 11)])

    assert [each.revision for each in await store.history("digits", 3)] == [10, 9, 8]
    assert await store.history("nix", 3) == []


async def test_of_changes_appended_together_all_are_kept_or_none(store: Store) -> None:
    await store.append([change(1)])
    with pytest.raises(Unavailable):
        await store.append([change(2), change(1)])

    assert [each.revision for each in await store.history("digits", 10)] == [1]


async def test_a_disk_that_refuses_is_unavailable_and_can_recover(
    tmp_path: Path, store: Store
) -> None:
    other = sqlite3.connect(tmp_path / "state" / FILE)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON changes BEGIN SELECT RAISE(FAIL, 'x'); END")
    with pytest.raises(StateUnusable, match="x"):
        await store.append([change(1)])
    other.execute("DROP TRIGGER full")
    other.close()

    await store.append([change(1)])
    assert await store.history("digits", 10) == [change(1)]


async def test_a_commit_is_synced_to_disk(store: Store, tmp_path: Path) -> None:
    await store.append([change(1)])
    settings = await store._file.run_in_thread(
        lambda: [
            store._file.open().execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
    )

    assert settings == ["wal", 2]  # 2: FULL


# ---------------------------------------------------------------- what is refused


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to look at" * 100)

    assert "not a database" in await refusal(tmp_path, StateDamaged)


async def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.append([change(revision) for revision in range(1, 200)])
    await store.close()
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:4096] + b"\xff" * 8192 + whole[12288:])

    assert "damaged" in await refusal(tmp_path, StateDamaged)
    (tmp_path / FILE).write_bytes(whole)
    store = await Store.open(tmp_path)
    assert len(await store.history("digits", 1_000)) == 199
    await store.close()


async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("CREATE TABLE changes (id INTEGER)")
    other.close()

    assert "already exists" in await refusal(tmp_path)


@pytest.mark.parametrize("is_written_back", [True, False])
async def test_a_newer_schema_is_refused_and_not_a_byte_of_it_is_touched(
    tmp_path: Path, is_written_back: bool
) -> None:
    await (await Store.open(tmp_path)).close()
    newer = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    newer.execute(f"PRAGMA user_version = {LAYOUT.version + 1}")
    if is_written_back:
        newer.close()
    before = of_the_file(tmp_path)

    assert f"schema {LAYOUT.version + 1} is newer" in await refusal(tmp_path)
    assert of_the_file(tmp_path) == before
    newer.close()


def of_the_file(folder: Path) -> dict[str, bytes]:
    """Return the file's parts but for the index of its log, which readers write too."""
    parts = [each for each in folder.glob(f"{FILE}*") if not each.name.endswith("-shm")]
    return {each.name: each.read_bytes() for each in parts}


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("after", "[]", StateDamaged),
        ("after", "no json", StateDamaged),
        ("action", "magic", StateUnusable),
    ],
)
async def test_an_entry_that_cannot_be_read_is_refused(
    tmp_path: Path, store: Store, column: str, value: str, kind: type[StateUnusable]
) -> None:
    await store.append([change(1)])
    other = sqlite3.connect(tmp_path / "state" / FILE)
    with other:
        other.execute(f"UPDATE changes SET {column} = ?", (value,))
    other.close()
    with pytest.raises(StateUnusable) as caught:
        await store.newest_changes()
    assert type(caught.value) is kind


async def test_a_file_without_its_table_is_damaged(tmp_path: Path, store: Store) -> None:
    other = sqlite3.connect(tmp_path / "state" / FILE)
    other.execute("DROP TABLE changes")
    other.close()

    assert "no such table" in await refusal(tmp_path / "state", StateDamaged)


# ---------------------------------------------------------------- kill -9


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    acknowledged = 0
    for _ in range(2):
        acknowledged = killed_after(tmp_path, acknowledged + rng.randint(1, 150))
        store = await Store.open(tmp_path)
        history = await store.history("digits", 1_000)
        await store.close()

        # One more may have been on its way to whoever read the acknowledgements.
        assert history[0].revision >= acknowledged
        assert [each.revision for each in history] == list(range(len(history), 0, -1))
        acknowledged = history[0].revision


def killed_after(folder: Path, revision: int) -> int:
    """Return the last revision that a process acknowledged before it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMITS_FOREVER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        last = 0
        while last < revision:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split("\n")
    return max([last, *(int(each) for each in rest[:-1])])
