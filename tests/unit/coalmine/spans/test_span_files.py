"""Trace files: rotated, bounded, whole lines."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from coalmine.spans.span_files import RotatingFile


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def write_all(folder: Path, lines: Sequence[str], **bounds: int) -> None:
    with RotatingFile(folder, **bounds) as file:
        for line in lines:
            file.write(line)


def test_a_line_that_no_longer_fits_begins_a_new_file(tmp_path: Path) -> None:
    write_all(tmp_path, ["aaaa\n", "bbbb\n", "c\n"], bytes_max=10)

    assert written(tmp_path) == {
        "traces-000001.jsonl": "aaaa\nbbbb\n",
        "traces-000002.jsonl": "c\n",
    }


def test_a_line_that_is_larger_than_a_file_is_written_whole(tmp_path: Path) -> None:
    write_all(tmp_path, ["a\n", "b" * 50 + "\n", "c\n"], bytes_max=10)

    assert list(written(tmp_path).values()) == ["a\n", "b" * 50 + "\n", "c\n"]


def test_the_oldest_files_go_when_there_are_too_many(tmp_path: Path) -> None:
    write_all(tmp_path, [f"{number}\n" for number in range(1, 8)], bytes_max=2, files_max=3)

    assert written(tmp_path) == {
        "traces-000005.jsonl": "5\n",
        "traces-000006.jsonl": "6\n",
        "traces-000007.jsonl": "7\n",
    }


def test_a_restart_goes_on_behind_the_newest_file_and_keeps_the_bound(tmp_path: Path) -> None:
    for number in range(4):
        write_all(tmp_path, [f"{number}\n"], files_max=2)

    assert list(written(tmp_path)) == ["traces-000003.jsonl", "traces-000004.jsonl"]


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "traces-mine.jsonl").write_text("x")
    (tmp_path / "notes.txt").write_text("x")

    for _ in range(3):
        write_all(tmp_path, ["a\n"], files_max=1)

    assert {"traces-mine.jsonl", "notes.txt"} <= set(written(tmp_path))


def test_what_was_flushed_can_be_read_while_the_file_is_open(tmp_path: Path) -> None:
    with RotatingFile(tmp_path) as file:
        file.open()
        assert written(tmp_path) == {"traces-000001.jsonl": ""}
        file.write("a\n")
        file.flush()
        assert written(tmp_path) == {"traces-000001.jsonl": "a\n"}
        assert not file.closed
    assert file.closed


def test_where_the_folder_is_deleted_the_next_line_is_in_a_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    with RotatingFile(folder) as file:
        file.write("a\n")
        file.flush()
        shutil.rmtree(folder)
        file.write("b\n")

    assert written(folder) == {"traces-000002.jsonl": "b\n"}


def test_a_next_file_that_can_not_be_opened_is_tried_again_and_no_old_one_goes(
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / "traces-000002.jsonl"
    with RotatingFile(tmp_path, bytes_max=2, files_max=1) as file:
        in_the_way.mkdir()
        file.write("a\n")
        with pytest.raises(IsADirectoryError):
            file.write("b\n")
        in_the_way.rmdir()
        assert (tmp_path / "traces-000001.jsonl").exists()
        file.write("c\n")

    assert written(tmp_path) == {"traces-000002.jsonl": "c\n"}


def test_a_file_whose_number_is_none_is_left_alone(tmp_path: Path) -> None:
    for name in ("traces-old.jsonl", "traces-²³.jsonl"):
        (tmp_path / name).write_text("")
    RotatingFile(tmp_path).open()
    assert len(list(tmp_path.iterdir())) == 3
