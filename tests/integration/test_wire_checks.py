"""buf, as `make check` runs it, sees a change that would break callers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
CHECKS = (("lint",), ("breaking", "--against", "protos/0.1.0.binpb"))
OIP, CONTROL = "inference/inference.proto", "control/v1/control.proto"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    copy(ROOT / "buf.yaml", tmp_path)
    copytree(ROOT / "protos", tmp_path / "protos")
    return tmp_path


def changed(folder: Path, file: str, change: Callable[[str], str]) -> None:
    path = folder / "protos" / "coalmine" / file
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def complaints(folder: Path) -> str:
    """Return what the checks print; nothing: they pass."""
    said = []
    for check in CHECKS:
        done = subprocess.run(
            [BUF, *check], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert bool(done.returncode) == bool(done.stdout), done.stderr
        said.append(done.stdout)
    return "".join(said)


def test_a_field_more_is_no_breach(copied: Path) -> None:
    new = "message RouteTable {\n  string added_later = 999;"
    changed(copied, CONTROL, lambda text: text.replace("message RouteTable {", new))
    assert complaints(copied) == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (CONTROL, "string sticky_metadata = 5;", "string sticky_metadata = 500;", '"5" with name'),
        (CONTROL, "rpc WatchRoute", "rpc ObserveRoute", '"WatchRoute" on service'),
        (CONTROL, "uint64 timeout_ns = 6;", "uint64 timeoutNs = 6;", "lower_snake_case"),
        (OIP, "string model_version = 2;", "bytes model_version = 2;", 'from "string" to "bytes"'),
    ],
)
def test_what_breaks_callers_or_reads_oddly_is_said(
    copied: Path, file: str, old: str, new: str, complaint: str
) -> None:
    changed(copied, file, lambda text: text.replace(old, new))
    assert complaint in complaints(copied)
