from pathlib import Path

import pytest

from coalmine.errors import LoadFailed, NotFound
from coalmine_server.poll import Poller
from coalmine_server.registry import State
from coalmine_server.repository import Repository
from tests.doubles.model_rig import ModelRig, open_rig, write


class Followed:
    """Remembers what it was told; refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.refuses = False

    async def load(self, name: str) -> None:
        self.heard.append(("load", name))
        if self.refuses:
            raise LoadFailed("no")

    async def remove(self, name: str) -> None:
        self.heard.append(("remove", name))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "a", {1: b"1"})
    write(tmp_path, "b", {1: b"1"})
    return tmp_path


def moved(folder: Path, name: str) -> Path:
    return folder.rename(folder.with_name(name))


async def poller(root: Path) -> tuple[Poller, Followed]:
    followed = Followed()
    made = Poller(Repository(root), followed)
    await made.note_known_stamps()
    return made, followed


async def test_what_has_not_changed_is_left_alone(root: Path) -> None:
    made, followed = await poller(root)
    await made.poll_once()
    assert followed.heard == []


async def test_what_changed_is_loaded_and_what_is_gone_removed(root: Path) -> None:
    made, followed = await poller(root)
    write(root, "a", {2: b"2"})
    write(root, "c", {1: b"1"})
    moved(root / "b", ".b")
    await made.poll_once()
    assert followed.heard == [("remove", "b"), ("load", "a"), ("load", "c")]
    await made.poll_once()
    assert len(followed.heard) == 3


async def test_what_cannot_be_loaded_is_tried_again_when_its_files_change(root: Path) -> None:
    made, followed = await poller(root)
    followed.refuses = True
    write(root, "a", {2: b"broken"})
    await made.poll_once()
    await made.poll_once()
    assert followed.heard == [("load", "a")]
    write(root, "a", {2: b"mended"})
    await made.poll_once()
    assert followed.heard == [("load", "a")] * 2


async def test_a_repository_that_cannot_be_read_takes_nothing_down(root: Path) -> None:
    made, followed = await poller(root)
    away = moved(root, "away")
    await made.poll_once()
    assert followed.heard == []
    moved(away, root.name)
    await made.poll_once()
    assert followed.heard == []


async def test_a_version_is_taken_only_when_its_bytes_and_its_hash_are_there(root: Path) -> None:
    async with open_rig(root, lenient=True, hashed_only=True) as rig:
        made = Poller(rig.repository, rig.control)
        await made.note_known_stamps()
        folder = root / "a" / "2"
        folder.mkdir()
        (folder / "model.pt").write_bytes(b"ha")  # a copy under way, and no hash so far
        await made.poll_once()
        assert served(rig) == [1]
        await made.poll_once()
        config = (root / "a" / "config.yaml").read_text()
        write(root, "a", {2: b"half"})  # the hash of all of it …
        (folder / "model.pt").write_bytes(b"ha")  # … of which half has come
        await made.poll_once()
        assert served(rig) == [1]
        assert "expected sha256" in rig.registry.failure_reason("a")
        (folder / "model.pt").write_bytes(b"half")
        await made.poll_once()
        assert served(rig) == [2]
        assert rig.registry.failure_reason("a") == ""
        assert config != (root / "a" / "config.yaml").read_text()


async def test_a_model_whose_folder_is_gone_is_unknown(root: Path) -> None:
    async with open_rig(root, lenient=True, hashed_only=True) as rig:
        made = Poller(rig.repository, rig.control)
        await made.note_known_stamps()
        moved(root / "b", ".b")
        await made.poll_once()
        with pytest.raises(NotFound):
            rig.find("b")
        moved(root / ".b", "b")
        await made.poll_once()
        assert rig.find("b").state is State.READY


def served(rig: ModelRig) -> list[int]:
    return [each.file.version for each in rig.registry.versions("a")]
