"""A repository with something wrong: `server run` doesn't start, and `server check` lists it."""

import json
from pathlib import Path

import pytest

from tests.doubles.faults import (
    FAULTS,
    Break,
    a_key_twice,
    a_link_to_itself,
    a_pipe,
    broken,
    config_file,
    cut_off,
    model_file,
    one_bit_flipped,
)
from tests.doubles.limited_commands import as_anybody
from tests.doubles.processes import ran
from tests.models import Linear, write_model


def said(stderr: str) -> list[str]:
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("coalmine: ")]
    return [line.removeprefix("coalmine: ") for line in lines if "warning: " not in line]


@pytest.mark.parametrize(
    "fault",
    [one_bit_flipped, cut_off, a_pipe, a_link_to_itself, a_key_twice],
    ids=lambda fault: fault.__name__,
)
def test_a_server_does_not_start_and_says_in_one_line_what_file_is_wrong_and_how(
    tmp_path: Path, fault: Break
) -> None:
    path = broken(tmp_path / "models", "m", fault)
    ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    done = ran("server", "run", "--model-repository", tmp_path / "models", *ports, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "", "it announces nothing"
    [line] = said(done.stderr)
    assert line.startswith(f"{path}: {FAULTS[fault][1]}")


def test_check_lists_every_one_and_finds_the_good_ones_between(tmp_path: Path) -> None:
    root = tmp_path / "models"
    names = {f"m-{fault.__name__}": fault for fault in FAULTS}
    blamed = {name: broken(root, name, fault) for name, fault in names.items()}
    write_model(root, "a-good-one", {1: Linear()})
    write_model(root, "z-good-one", {1: Linear()})
    done = ran("server", "check", root, "--json", folder=tmp_path)
    assert done.returncode == 2
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert {name for name, row in rows.items() if row["ok"]} == {"a-good-one", "z-good-one"}
    for name, fault in names.items():
        why = FAULTS[fault][1].replace("'m'", f"'{name}'")
        assert rows[name]["problem"].startswith(f"{blamed[name]}: {why}")
    assert said(done.stderr) == [row["problem"] for row in rows.values() if not row["ok"]]


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "m", {1: Linear()})
    model_file(folder).chmod(0)
    done = as_anybody("server", "check", folder.parent)
    assert done.returncode == 2
    assert said(done.stderr) == [f"{model_file(folder)}: permission denied"]


def test_a_config_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "m", {1: Linear()})
    config_file(folder).chmod(0)
    done = as_anybody("server", "check", folder.parent)
    assert done.returncode == 2
    assert said(done.stderr) == [f"{config_file(folder)}: permission denied"]


def test_a_folder_that_may_not_be_listed_is_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "m", {1: Linear()})
    folder.chmod(0o311)
    done = as_anybody("server", "check", folder.parent)
    assert done.returncode == 2
    assert said(done.stderr) == [f"{folder}: permission denied"]


def test_a_broken_provenance_keeps_no_model_from_being_served(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "m", {1: Linear()})
    (folder / "1" / "provenance.json").write_bytes(b"\xff{")
    done = ran("server", "check", folder.parent, folder=tmp_path)
    assert done.returncode == 0
    assert "provenance_unreadable" in done.stderr
