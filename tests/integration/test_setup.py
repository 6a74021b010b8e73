"""What `make setup` says and asks pip for; pip itself is a double here."""

import os
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "tools" / "setup.sh"
INDEX = "http://127.0.0.1:1/simple"
PIP = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/../asked"
for each in $(seq 300); do echo "Collecting package-$each"; done
echo "  Downloading small-1-py3-none-any.whl (1.5 MB)"
echo "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (555.9 MB)"
echo "Installing collected packages: one, two, three"
exit ${PIP_ENDS_WITH:-0}
"""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Return a virtual environment without torch."""
    write(tmp_path / "venv" / "bin" / "pip", PIP)
    write(tmp_path / "venv" / "bin" / "python", "#!/bin/sh\nexit 1\n")
    return tmp_path / "venv"


def write(program: Path, text: str) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(text)
    program.chmod(0o755)


def said(venv: Path, *, code: int = 0, **environment: str) -> list[str]:
    done = subprocess.run(
        [SETUP, venv],
        env={**os.environ, "TORCH_INDEX": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()


def asked(venv: Path) -> list[str]:
    return (venv / "asked").read_text().splitlines()


def test_the_size_is_said_before_and_large_downloads_by_name(venv: Path) -> None:
    lines = said(venv)
    assert "5.2 GB" in lines[1]
    assert "TORCH_INDEX=URL" in lines[2]
    assert [line for line in lines if "torch-2.13.0" in line]
    assert "setup: installing 3 packages" in lines
    assert len(lines) < 10
    assert len(asked(venv)) == 1


def test_torch_alone_comes_from_the_index_that_is_named(venv: Path) -> None:
    lines = said(venv, TORCH_INDEX=INDEX)
    first, second = asked(venv)
    assert INDEX in lines[1]
    assert "GB: PyPI's" not in "".join(lines)
    assert first.startswith(f"install --no-deps --index-url {INDEX} torch==")
    assert INDEX not in second


def test_a_torch_that_is_there_stays(venv: Path) -> None:
    write(venv / "bin" / "python", "#!/bin/sh\necho 2.13.0+cpu\n")
    lines = said(venv, TORCH_INDEX=INDEX)
    assert "torch 2.13.0+cpu is there, and stays" in lines[1]
    assert len(asked(venv)) == 1


def test_a_pip_that_fails_ends_the_setup(venv: Path) -> None:
    lines = said(venv, code=7, PIP_ENDS_WITH="7", TORCH_INDEX=INDEX)
    assert len(asked(venv)) == 1
    assert "done" not in lines[-1]


def test_make_hands_the_index_on_as_it_is(venv: Path) -> None:
    index = "http://127.0.0.1:1/simple?a=1&b=it's $(false)"
    subprocess.run(
        ["make", "--directory", SETUP.parents[1], "setup", f"VENV={venv}"],
        env={**os.environ, "TORCH_INDEX": index},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert f"--index-url {index} " in asked(venv)[0]
