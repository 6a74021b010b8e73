"""Files that are read again when they change."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.process.watched_files import Watched, stamp_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def watched(file: Path) -> Watched[int]:
    def read() -> int:
        try:
            return int(file.read_text())
        except (OSError, ValueError) as error:
            raise StartError(f"{file}: {error}") from None

    return Watched([file], read)


def test_a_file_that_is_as_it_was_is_not_read_again(file: Path) -> None:
    reads: list[int] = []
    each = Watched([file], lambda: reads.append(1))
    assert not each.refresh()
    assert reads == [1], "once, at the start"


def test_a_changed_file_is_taken(file: Path) -> None:
    each = watched(file)
    file.write_text("22")
    assert each.refresh()
    assert each.value == 22


def test_a_file_that_is_replaced_by_one_of_the_same_size_is_taken(file: Path) -> None:
    each = watched(file)
    new = file.with_name("new")
    new.write_text("2")
    new.replace(file)
    assert each.refresh()
    assert each.value == 2


@pytest.mark.parametrize("content", ["nonsense", None])
def test_a_wrong_file_leaves_what_was_and_is_logged_once(file: Path, content: str | None) -> None:
    each = watched(file)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with capture_logs() as logged:
        assert not each.refresh()
        assert not each.refresh()
    assert each.value == 1
    assert [line["event"] for line in logged] == ["changed_file_refused"]
    assert str(file) in logged[0]["reason"]


def test_a_file_that_is_mended_is_taken(file: Path) -> None:
    each = watched(file)
    file.write_text("nonsense")
    each.refresh()
    file.write_text("3")
    with capture_logs() as logged:
        assert each.refresh()
    assert each.value == 3
    assert logged[0]["event"] == "changed_file_taken"


def test_a_file_that_is_wrong_from_the_start_is_an_error(file: Path) -> None:
    file.write_text("nonsense")
    with pytest.raises(StartError, match="nonsense"):
        watched(file)


def test_what_is_written_while_it_is_read_is_read_next_time(file: Path) -> None:
    values = iter("23")

    def read() -> str:
        text = file.read_text()
        file.write_text(next(values, text) * 2)  # longer: another stamp on every file system
        return text

    each = Watched([file], read)
    assert each.value == "1"
    assert each.refresh()
    assert each.value == "22"


def test_a_file_that_is_not_there_has_a_stamp_too(tmp_path: Path) -> None:
    assert stamp_of([tmp_path / "nowhere"]) == (None,)
