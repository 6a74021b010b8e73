"""`coalmine traces`: files in, trees out."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coalmine_client.cli.root import program
from tests.doubles.exported_traces import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("traces")
    names = export(made)
    (made / "names.json").write_text(json.dumps({name: key for key, name in names.items()}))
    return made


@pytest.fixture(scope="module")
def ids(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "names.json").read_text())
    return found


def traces(*words: Any) -> Any:
    return CliRunner().invoke(program(), ["traces", *map(str, words)])


def shown(folder: Path, trace_id: str) -> str:
    result = traces(folder, "--trace", trace_id)
    assert (result.exit_code, result.stderr) == (0, "")
    text: str = result.stdout
    return text


def test_a_mismatch_is_a_tree_with_who_was_asked_and_what_differs(
    folder: Path, ids: dict[str, str]
) -> None:
    text = shown(folder, ids["two outputs"])
    head, columns, *rows = text.splitlines()
    assert head.startswith(ids["two outputs"])
    assert "route digits · stable by split" in head
    assert "0 … 5.25 ms" in columns
    assert [row.split()[:3] for row in rows[:4]] == [
        ["ModelInfer", "server", "coalmine-router"],
        ["├─", "primary", "stable"],
        ["├─", "shadow", "canary"],
        ["└─", "compare", "canary:"],
    ]
    assert rows[3].endswith("mismatch: value")
    assert rows[4:] == [
        "canary against stable, shadow: mismatch, 1 of 1 rows, max |diff| 0.2",
        "  scores value (rule close)",
        "    at [0, 1]: expected 0.7, got 0.5",
        "  logits nan (rule close)",
        "    at [0, 1]: expected 0.7, got 0.5",
    ]


def test_the_servers_spans_hang_below_the_routers_call(folder: Path, ids: dict[str, str]) -> None:
    rows = shown(folder, ids["version 3"]).splitlines()
    assert [row.split("  ")[0].rstrip() for row in rows[2:5]] == [
        "ModelInfer",
        "├─ primary stable",
        "│",
    ]
    assert "└─ ModelInfer" in rows[4]
    assert "coalmine-server v3" in rows[4]
    assert ["queue" in rows[5], "execute" in rows[6]] == [True, True]


def test_with_the_routers_files_alone_the_servers_spans_are_missing(
    folder: Path, ids: dict[str, str]
) -> None:
    result = traces(folder / "router", "--trace", ids["version 3"])
    assert result.exit_code == 0
    assert "coalmine-server" not in result.stdout


def test_a_copy_that_failed_says_why(folder: Path, ids: dict[str, str]) -> None:
    text = shown(folder, ids["shadow failed"])
    assert "UNAVAILABLE gone fishing" in text
    assert "canary against stable, shadow: error" in text


def test_a_request_that_fell_back_has_both_calls(folder: Path, ids: dict[str, str]) -> None:
    text = shown(folder, ids["fell back"])
    assert "stable by fallback · instead of canary" in text
    assert ["primary canary" in text, "fallback stable" in text] == [True, True]


def test_a_verdict_leads_to_what_tipped_it_and_that_says_so(
    folder: Path, ids: dict[str, str]
) -> None:
    verdict = shown(folder, ids["failure"])
    assert "canary against stable: 5 % of rows differ, 1 % may" in verdict
    assert "mismatch: fail 5 %" in verdict
    assert f"tipped by trace {ids['tipped']}" in verdict
    assert "tipped the verdict: fail" in shown(folder, ids["tipped"])


def test_only_mismatches_of_candidates_are_listed_where_asked_for(
    folder: Path, ids: dict[str, str]
) -> None:
    result = traces(folder, "--mismatches", "--limit", 100)
    shown = {name for name, trace_id in ids.items() if trace_id in result.stdout}
    assert {"scores by 0.2", "audit", "of int8", "acme's mismatch"} <= shown
    assert {"match", "noise alone", "shadow failed", "failure", "slow"}.isdisjoint(shown)


def test_no_more_than_the_limit_are_listed(folder: Path) -> None:
    assert traces(folder, "--limit", 3).stdout.count("route digits") == 3


def test_json_has_every_span_with_its_attributes(folder: Path, ids: dict[str, str]) -> None:
    result = traces(folder, "--trace", ids["nan"], "--json")
    (trace,) = json.loads(result.stdout)["traces"]
    assert trace["trace_id"] == ids["nan"]
    assert [each["kind"] for each in trace["spans"]] == ["SERVER", "CLIENT", "CLIENT", "INTERNAL"]
    compare = trace["spans"][-1]
    assert compare["attributes"]["coalmine.compare.kind"] == "nan"
    assert compare["events"][0]["attributes"]["name"] == "logits"
    assert compare["duration_ms"] == 0.05
    assert compare["started_at"].startswith("2023-11-14T22:13:20.005")


def test_whole_traces_are_written_as_otlp_json_that_can_be_read_again(
    folder: Path, ids: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "out" / "whole.jsonl"
    result = traces(folder, "--trace", ids["version 3"], "--otlp", file)
    assert (result.exit_code, result.stdout) == (0, f"1 trace with 7 spans in {file}\n")
    (line,) = file.read_text().splitlines()
    services = [
        (attribute["value"]["stringValue"], len(each["scopeSpans"][0]["spans"]))
        for each in json.loads(line)["resourceSpans"]
        for attribute in each["resource"]["attributes"]
        if attribute["key"] == "service.name"
    ]
    assert services == [("coalmine-router", 4), ("coalmine-server", 3)]
    assert shown(file, ids["version 3"]) == shown(folder, ids["version 3"])
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_written_goes_by_the_same_filters(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "whole.jsonl"
    traces(folder, "--mismatches", "--limit", 3, "--otlp", file)
    assert (
        traces(file, "--mismatches").stdout == traces(folder, "--mismatches", "--limit", 3).stdout
    )
    assert len(file.read_text().splitlines()) == 3


def test_into_a_pipe_go_the_traces_alone(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    result = traces(folder, "--limit", 1, "--otlp", pipe)
    written = os.read(reader, 1_000_000).decode()
    os.close(reader)
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(written)["resourceSpans"]


def test_a_link_stays_and_what_it_leads_to_is_written(folder: Path, tmp_path: Path) -> None:
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("before")
    link.symlink_to(there)
    traces(folder, "--limit", 1, "--otlp", link)
    assert (link.is_symlink(), json.loads(there.read_text()).keys()) == (True, {"resourceSpans"})


def test_two_forms_at_once_are_one_line(folder: Path, tmp_path: Path) -> None:
    result = traces(folder, "--json", "--otlp", tmp_path / "whole.jsonl")
    assert (result.exit_code, "--json and --otlp" in result.stderr) == (2, True)


# ---------------------------------------------------------------- what may be wrong


def test_a_half_written_last_line_is_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    (whole,) = (folder / "router").glob("traces-*.jsonl")
    line = whole.read_text().splitlines(keepends=True)[0]
    file = tmp_path / "traces-000001.jsonl"
    file.write_text(line + line[: len(line) // 2])
    result = traces(file, "--limit", 1)
    assert result.exit_code == 0
    assert "route digits" in result.stdout
    assert result.stderr == f"coalmine: traces: {file}: its last line isn't whole; left out\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("not json\n", "line 1: no JSON"),
        ('{"resourceSpans": []}\n{"half\n{"resourceSpans": []}\n', "line 2: no JSON"),
        ("{}\n", "line 1: a line of a trace file has no resourceSpans"),
        ('{"resourceSpans": [7]}\n', "line 1: its spans are not those of OTLP JSON"),
    ],
)
def test_a_line_that_is_no_trace_is_named(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(content)
    result = traces(file)
    assert (result.exit_code, result.stderr) == (2, f"coalmine: traces: {file}: {why}\n")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = traces(tmp_path / "none.jsonl")
    assert result.exit_code == 2
    assert result.stderr.endswith("none.jsonl: no such file or folder\n")


def test_a_folder_without_trace_files_is_one_line(tmp_path: Path) -> None:
    result = traces(tmp_path)
    assert result.exit_code == 2
    assert result.stderr.endswith("no traces-*.jsonl in this folder\n")


def test_bytes_that_are_no_text_do_not_end_it(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b"\xff\xfe\x00\n")
    result = traces(file)
    assert (result.exit_code, "line 1: no JSON" in result.stderr) == (2, True)


def test_a_trace_that_is_not_there_and_an_id_that_is_none_are_told_apart(folder: Path) -> None:
    absent, wrong = traces(folder, "--trace", "f" * 32), traces(folder, "--trace", "order-4711")
    assert (absent.exit_code, wrong.exit_code) == (1, 2)
    assert f"no trace {'f' * 32} in" in absent.stderr
    assert "expected 32 hexadecimal digits, got 'order-4711'" in wrong.stderr


def test_an_empty_file_has_no_traces(tmp_path: Path) -> None:
    file = tmp_path / "traces-000001.jsonl"
    file.touch()
    assert traces(file).stdout == "no traces\n"
    assert json.loads(traces(file, "--json").stdout) == {"traces": []}


def test_what_a_model_named_can_not_steer_the_terminal(tmp_path: Path) -> None:
    span = {"traceId": "a" * 32, "spanId": "1", "name": "\x1b[2Jgone", "kind": 1}
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}) + "\n")
    text = traces(file).stdout
    assert "\x1b" not in text
    assert "\\x1b[2Jgone" in text
