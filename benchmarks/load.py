"""Load from h2load, and the CPU time that a process tree spent on it.

A load generator in Python would measure itself. h2load sees no grpc-status, so each contestant's
answer is checked by a real client first, and the bytes per answer during the run.
"""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

METHOD = "inference.GRPCInferenceService/ModelInfer"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """A fixed number of requests over four connections, `concurrency` at a time.

    With a `rate`, so many are begun a second, whether or not those before are answered, as long as
    no more than `concurrency` are on their way; 0: each as soon as one is answered.
    """

    body: Path
    requests: int
    concurrency: int
    rate: int = 0

    @classmethod
    def of(
        cls, body: bytes, folder: Path, *, requests: int, concurrency: int, rate: int = 0
    ) -> "Load":
        """Return a load that sends `body`, framed as gRPC frames a message."""
        file = folder / f"body-{len(body)}.grpc"
        file.write_bytes(b"\x00" + struct.pack(">I", len(body)) + body)
        return cls(file, requests, concurrency, rate)


@dataclass(frozen=True)
class Measured:
    """What one run cost: CPU microseconds a request by part, requests a second, milliseconds."""

    cpu_us: dict[str, float]
    rate: float
    p50_ms: float
    p99_ms: float


class LoadError(Exception):
    """The load did not run as it should; the figures would mean nothing."""


def h2load_missing() -> bool:
    """Return whether there is no h2load on this machine."""
    return shutil.which("h2load") is None


def run(
    load: Load, address: str, parts: Mapping[str, Sequence[int]], response_bytes: int
) -> Measured:
    """Send the load to `address`; `parts` are pids whose trees are measured.

    Raises LoadError where a request failed or the answers have the wrong size.
    """
    send(load, address, requests=load.requests // 10)
    before = {name: _spent_s(pids) for name, pids in parts.items()}
    said = send(load, address, requests=load.requests)
    spent = {name: _spent_s(pids) - before[name] for name, pids in parts.items()}
    _check(said, load.requests, response_bytes)
    p50_ms, p99_ms = _latencies_ms(load)
    return Measured(
        cpu_us={name: seconds / load.requests * 1e6 for name, seconds in spent.items()},
        rate=_number(said, r"finished in [\d.]+m?s, ([\d.]+) req/s"),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
    )


def _spent_s(pids: Sequence[int]) -> float:
    return sum(cpu_s(pid) for pid in pids)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its living and reaped children."""
    return sum(_own_cpu_s(each) for each in tree(pid))


def tree(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [pid]
    for file in children:
        for child in file.read_text().split():
            found += tree(int(child))
    return found


def _own_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:15]) / _TICKS


def send(load: Load, address: str, *, requests: int) -> str:
    """Send that many requests; return what h2load says of them."""
    log = load.body.with_suffix(".log")
    log.unlink(missing_ok=True)
    command = [
        *("h2load", "-n", str(requests), "-c", "4", "-m", str(load.concurrency // 4)),
        *("-d", str(load.body), "--log-file", str(log)),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        # A sticky key, for the router that looks for one.
        *("-H", "x-user-id: 42"),
        # Of each connection.
        *(("--rps", str(load.rate // 4)) if load.rate else ()),
        f"http://{address}/{METHOD}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout


def _check(said: str, requests: int, response_bytes: int) -> None:
    succeeded = _number(said, r"(\d+) succeeded")
    # A frame is the message and five bytes; an error would be trailers alone.
    data = _traffic_bytes(said)
    expected = requests * (response_bytes + 5)
    if succeeded != requests or abs(data - expected) > expected * 0.02:
        raise LoadError(f"{succeeded:.0f} of {requests} succeeded, {data} bytes, not {expected}")


def _traffic_bytes(said: str) -> int:
    return int(_number(said, r"\((\d+)\) data"))


def _latencies_ms(load: Load) -> tuple[float, float]:
    # h2load logs a line a request: start, status, microseconds.
    lines = load.body.with_suffix(".log").read_text().splitlines()
    times = sorted(int(line.split("\t")[2]) / 1e3 for line in lines)
    return times[len(times) // 2], times[len(times) * 99 // 100]


def _number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise LoadError(f"h2load did not say {pattern!r}:\n{text}")
    return float(found[1])
