"""`coalmine protos` writes the files that protoc reads, and overwrites nothing unasked."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coalmine_client.cli.root import program
from tests.doubles.processes import ran

PROTOS = Path(__file__).parents[2] / "protos"
NAMES = ("coalmine/control/v1/control.proto", "coalmine/inference/inference.proto")


def invoke(*words: Any) -> Any:
    return CliRunner().invoke(program(), ["protos", *map(str, words)])


def test_the_files_are_those_of_the_package_and_each_is_named(tmp_path: Path) -> None:
    done = invoke("--to", tmp_path / "new")

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [f"{tmp_path}/new/{name}" for name in NAMES]
    for name in NAMES:
        assert (tmp_path / "new" / name).read_bytes() == (PROTOS / name).read_bytes()
    assert len([each for each in (tmp_path / "new").rglob("*") if each.is_file()]) == len(NAMES)


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    invoke("--to", tmp_path)
    (tmp_path / NAMES[1]).unlink()

    assert invoke("--to", tmp_path).stdout.splitlines() == [f"{tmp_path}/{NAMES[1]}"]


def test_another_file_is_overwritten_by_force_alone(tmp_path: Path) -> None:
    other = tmp_path / NAMES[1]
    other.parent.mkdir(parents=True)
    other.write_text("mine")

    refused = invoke("--to", tmp_path)
    assert refused.exit_code == 1
    assert f"coalmine: protos: {other} is there already, and differs" in refused.stderr
    assert other.read_text() == "mine"
    assert not (tmp_path / NAMES[0]).exists(), "nothing is written by halves"
    assert invoke("--to", tmp_path, "--force").exit_code == 0
    assert other.read_bytes() == (PROTOS / NAMES[1]).read_bytes()


@pytest.mark.parametrize("at", ["coalmine", "coalmine/inference/inference.proto"])
def test_what_is_in_the_way_is_a_line(tmp_path: Path, at: str) -> None:
    in_the_way = tmp_path / at
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.mkdir() if at.endswith(".proto") else in_the_way.write_text("a file")

    done = ran("protos", "--to", tmp_path, "--force", folder=tmp_path)

    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("coalmine: protos: ")
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_is_a_file_is_a_line(tmp_path: Path) -> None:
    done = ran("protos", "--to", "/dev/full", folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("coalmine: protos: /dev/full")
