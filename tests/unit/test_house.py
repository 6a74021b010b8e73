"""What `make check` says of a file without a place, and of a module that only says it is pure."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "check_house.py"
LINTER: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

spec = importlib.util.spec_from_file_location("check_house", SCRIPT)
assert spec is not None
assert spec.loader is not None
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)

FOLDERS = ("protos", "server", "router", "clients", "examples")
# Every folder that holds code, and those above it.
ROOMS = sorted(
    {
        folder.relative_to(ROOT)
        for top in FOLDERS
        for path in (ROOT / top).rglob("*.py")
        for folder in path.parents
        if folder.is_relative_to(ROOT / top) and "node_modules" not in folder.parts
    }
)

CONTRACTS = """
[tool.importlinter]
root_packages = ["coalmine_router"]

[[tool.importlinter.contracts]]
name = "3a. router"
type = "layers"
containers = ["coalmine_router"]
exhaustive = true
layers = ["app", "(wire) | table", "room"]

[[tool.importlinter.contracts]]
name = "4. layers that need not be all"
type = "layers"
containers = ["coalmine_router.room"]
layers = ["chair"]

[[tool.importlinter.contracts]]
name = "5. pure modules"
type = "forbidden"
source_modules = ["coalmine_router.table"]
forbidden_modules = ["time"]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(CONTRACTS)
    for name in ("__init__", "app", "table", "wire"):
        write(tmp_path / "router" / "coalmine_router" / f"{name}.py")
    return tmp_path


def write(path: Path, docstring: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'"""{docstring}"""\n')


def checked(repository: Path) -> tuple[int, list[str]]:
    """Return the script's exit status, and the files that it names."""
    run = [sys.executable, str(SCRIPT)]
    done = subprocess.run(run, cwd=repository, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, [line.partition(":")[0] for line in done.stdout.splitlines()]


def test_this_repository_breaks_neither_rule() -> None:
    assert checked(ROOT) == (0, [])


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_stray_file_in_any_folder_is_found(room: Path) -> None:
    stray = room / "stray.py"

    (line,) = house.without_place([stray], LINTER)
    assert line.startswith(f"{stray}: ")


@pytest.mark.parametrize(
    "stray",
    [
        "router/stray.py",
        "router/other/__init__.py",
        "router/coalmine_router/stray.py",
        "router/coalmine_router/new/__init__.py",
        "router/coalmine_router/new/stray.py",
        "router/coalmine_router/room/chair.py",  # its contract is not exhaustive
        "clients/deep/down/stray.py",
        "examples/demo/stray.py",
    ],
)
def test_a_file_that_no_exhaustive_contract_names_fails_the_check(
    repository: Path, stray: str
) -> None:
    write(repository / stray)

    assert checked(repository) == (1, [stray])


def test_files_in_their_places_pass(repository: Path) -> None:
    write(repository / "router" / "coalmine_router" / "room" / "__init__.py")
    write(repository / "clients" / "node" / "node_modules" / "gyp" / "input.py")

    assert checked(repository) == (0, [])


def test_a_module_that_says_pure_must_be_held_to_it(repository: Path) -> None:
    package = repository / "router" / "coalmine_router"
    write(package / "table.py", "Routes by name. Pure.")
    write(package / "wire.py", "Bytes to requests. Pure, as far as it goes.")
    write(package / "app.py", "Builds the router. Purely by hand.")

    assert checked(repository) == (1, ["router/coalmine_router/wire.py"])
