"""Processes that are started for real, and stopped by pid."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import tree

_END_S = 20


def kinds(pid: int) -> dict[str, list[int]]:
    """Return the pids of the router's children by what they are."""
    found: dict[str, list[int]] = {}
    for child in tree(pid):
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        for name in ("proxy", "control"):
            if name in words:
                found.setdefault(name, []).append(child)
    return found


@contextlib.contextmanager
def python(
    module: str, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Yield a Python program that runs."""
    with begun([sys.executable, "-m", module, *arguments], environment or {}) as process:
        yield process


@contextlib.contextmanager
def begun(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Yield a command that runs; at the end it is asked to end, and waited for."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(_END_S)


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line that it says."""
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if not said:
        raise RuntimeError(f"{process.args!r} ended before it was ready")
    return said
