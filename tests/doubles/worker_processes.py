"""A server of several workers, seen from outside: its metrics, its log and its pids."""

import json
from pathlib import Path
from typing import Any

from tests.doubles.processes import Started

PORTS = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
RESTARTS = "coalmine_server_worker_restarts_total"


def sample(server: Started, name: str) -> float:
    """Return one sample of /metrics, by its name with its labels."""
    [line] = [each for each in server.page().splitlines() if each.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def total(server: Started, name: str, *labels: str) -> float:
    """Return the sum of the samples with these labels."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in server.page().splitlines()
        if line.startswith(f"{name}{{") and all(each in line for each in labels)
    )


def both_up(server: Started, restarts: float) -> bool:
    up = sample(server, 'coalmine_server_workers{state="up"}')
    return up == 2 and sample(server, RESTARTS) == restarts


def workers(server: Started) -> list[int]:
    """Return the workers' pids, in the order of their numbers."""
    found = {
        Path(words[3]).name: pid
        for pid, words in server.children().items()
        if "coalmine_server" in words
    }
    return [found[name] for name in sorted(found)]


def events(server: Started) -> list[dict[str, Any]]:
    lines = server.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]
