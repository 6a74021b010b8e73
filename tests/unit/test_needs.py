"""What a test needs is skipped with its reason where it is absent, and fails where demanded."""

import subprocess
import sys
from pathlib import Path

from tests.needs import DEMAND, WHY_NOT

ROOT = Path(__file__).parents[2]
NEEDY = """
import pytest
pytestmark = pytest.mark.needs("go")

@pytest.fixture(scope="session")
def scene():
    raise RuntimeError("begun for nothing")

def test_needy(scene):
    pass
"""


def ran(folder: Path, demand: str) -> subprocess.CompletedProcess[str]:
    """Run a test that needs Go, by the project's own conftest, where PATH has no program."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs(name)\n")
    (folder / "test_needy.py").write_text(NEEDY)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "--strict-markers", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={"PATH": str(folder), "PYTHONPATH": str(ROOT), DEMAND: demand},
        check=False,
    )


def test_what_is_absent_is_skipped_with_the_reason(tmp_path: Path) -> None:
    done = ran(tmp_path, "")

    assert done.returncode == 0
    assert "1 skipped" in done.stdout
    assert "needs go: there is no `go`" in done.stdout


def test_what_is_absent_and_demanded_fails(tmp_path: Path) -> None:
    done = ran(tmp_path, "java go")

    assert done.returncode == 1
    assert "COALMINE_DEMAND demands go, and there is no `go`" in done.stdout
    assert "begun for nothing" not in done.stdout


def test_a_demand_that_no_test_has_is_refused(tmp_path: Path) -> None:
    done = ran(tmp_path, "go pascal")

    assert done.returncode == 4
    assert "COALMINE_DEMAND names 'pascal'; tests can need" in done.stderr


def test_ci_demands_all_that_tests_can_need() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    [line] = [each for each in lines if each.startswith(f"export {DEMAND}=")]

    assert set(line.partition("=")[2].strip('"').split()) == set(WHY_NOT)
