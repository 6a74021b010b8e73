"""Trace files on disk."""

import json
from pathlib import Path

import pytest

from coalmine.command_line.failure import WrongUsage
from coalmine_client.cli.traces import traces_files
from coalmine_client.cli.traces.traces_files import TraceFiles


def written(file: Path, *ids: str, end: str = "\n") -> Path:
    spans = [{"traceId": each, "spanId": each, "name": "call"} for each in ids]
    lines = [json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [each]}]}]}) for each in spans]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines) + end)
    return file


def ids(files: TraceFiles) -> list[str]:
    return [span.trace_id for span in files.spans()]


def test_a_folder_means_its_trace_files_oldest_first_and_those_of_workers_below(
    tmp_path: Path,
) -> None:
    written(tmp_path / "traces-000002.jsonl", "b")
    written(tmp_path / "traces-000001.jsonl", "a")
    written(tmp_path / "worker-1" / "traces-000001.jsonl", "c")
    written(tmp_path / "other.jsonl", "x")
    files = TraceFiles([tmp_path, tmp_path / "other.jsonl"])
    assert ids(files) == ids(files) == ["a", "b", "c", "x"]


def test_a_file_of_a_folder_that_went_meanwhile_is_passed_over_but_a_named_one_is_told(
    tmp_path: Path,
) -> None:
    file = written(tmp_path / "traces-000001.jsonl", "a")
    folder, named = TraceFiles([tmp_path]), TraceFiles([file])
    file.unlink()
    assert ids(folder) == []
    with pytest.raises(WrongUsage, match="no such file"):
        ids(named)


def test_a_last_line_without_its_break_is_whole_where_its_json_is(tmp_path: Path) -> None:
    files = TraceFiles([written(tmp_path / "t.jsonl", "a", "b", end="")])
    assert (ids(files), files.unfinished) == (["a", "b"], set())


def test_empty_lines_are_nothing(tmp_path: Path) -> None:
    files = TraceFiles([written(tmp_path / "t.jsonl", "a", end="\n\n\n")])
    assert ids(files) == ["a"]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with file.open("wb") as sparse:
        sparse.truncate(traces_files.LINE_CHARS_MAX + 1)
    with pytest.raises(WrongUsage, match="line 1: no JSON"):
        ids(TraceFiles([file]))
