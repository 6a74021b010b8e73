"""A real server process, its repository, and programs that call it, each a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.doubles.processes import Started, started

_ROOT = Path(__file__).parents[2]
_PORTS = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
_CALLER_S = 60.0

# What a caller prints.
Output = dict[str, Any]


def written(module: str, folder: Path) -> Path:
    """Have the program `module` write a repository into `folder`; this process loads no torch."""
    _run(module, str(folder))
    return folder


@contextmanager
def server_of(
    repository: Path,
    folder: Path,
    *options: str | Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Started]:
    """Run `coalmine server run` with these options, its log in `folder`, until the block ends."""
    arguments = ("server", "run", "--model-repository", repository, *_PORTS, *options)
    with started(*arguments, folder=folder, environment=environment) as running:
        yield running


def output_of(module: str, *arguments: str) -> Output:
    """Run a caller to its end; return what it prints, which is JSON."""
    output: Output = json.loads(_run(module, *arguments))
    return output


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=_CALLER_S,
        cwd=_ROOT,
        check=False,
    )
    assert done.returncode == 0, f"{module} {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
