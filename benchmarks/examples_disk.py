"""What kept mismatches cost the disk: `python -m benchmarks.examples_disk`.

A process keeps examples of a canary that fails all the time; the kernel says what it wrote. Beside
it, another process makes changes as control does, on the same disk: how long until one is on it.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any, Final

from benchmarks import results
from benchmarks.results import row
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.config.route import RouteConfig
from coalmine_router.control.history_store import Store
from coalmine_router.control.route_history import Change, Split
from coalmine_router.observer.examples.example_store import ExampleStore

RATE: Final = 156
SECONDS: Final = 60
BODIES: Final = (256, 64 * 1024)

_BETWEEN_CHANGES_S: Final = 0.05
_TITLES: Final = (
    *("each body", "mismatches", "kept", "MiB/s to disk", "data of what was kept"),
    *("file, MiB", "change on disk, p50 ms", "p99 ms"),
)

_SAID: Final = """\
Made by `python -m benchmarks.examples_disk`: a canary fails all the time. Beside it another process
makes changes as control does, on the same disk. The kernel counts the bytes. A ratio compares them
with the data of the examples that were kept. Before the router chose examples in memory, it was 103
MiB/s and 3.5 times for 64 KiB, and 6.2 MiB/s and 44 times for 256 bytes."""


@dataclass(frozen=True)
class Written:
    """What a run kept, and what it wrote for that."""

    offered: int
    kept: int
    record_bytes: int
    disk_bytes: int
    file_bytes: int
    took_s: float


def keep(folder: Path, body_bytes: int, rate: float, seconds: float) -> Written:
    """Keep examples at a rate for a while; return what the kernel says of it. Run it alone."""
    return asyncio.run(_keep(folder, body_bytes, rate, seconds))


async def _keep(folder: Path, body_bytes: int, rate: float, seconds: float) -> Written:
    path, rng = folder / "mismatches.db", random.Random(1)
    routes = {"digits": route()}
    examples = ExampleStore(path, routes=routes, clock=SystemClock())
    running = asyncio.create_task(examples.run())
    before, began = written_bytes(), time.monotonic()
    offered = 0
    while (now := time.monotonic()) < began + seconds:
        while offered < (now - began) * rate:
            offered += 1
            examples.offer(example(offered, body_bytes, rng))
        await asyncio.sleep(0.01)
    took_s = time.monotonic() - began
    disk_bytes = written_bytes() - before
    kept = examples.totals()["kept"]
    running.cancel()
    await examples.close()
    size = example(0, body_bytes, rng).ByteSize()
    return Written(offered, kept, size, disk_bytes, path.stat().st_size, took_s)


def example(number: int, body_bytes: int, rng: random.Random) -> pb.Mismatch:
    """Return a mismatch as the observer makes them, with three bodies of a size."""
    difference = pb.Difference(
        output="logits",
        kind="value",
        expected="0.25",
        actual="0.5",
        max_abs_diff=rng.random(),
        differing=3,
        elements=10,
        rows=1,
        rows_mismatch=1,
        rule="close",
    )
    return pb.Mismatch(
        id=f"{rng.getrandbits(64):016x}",
        at_ns=time.time_ns(),
        route="digits",
        reference="stable",
        candidate="canary",
        trace_id=rng.randbytes(16),
        differences=[difference],
        role="shadow",
        kind="value",
        capture="full",
        rows=1,
        rows_mismatch=1,
        reference_version="1",
        candidate_version="2",
        trial=1,
        request_id=str(number),
        request=rng.randbytes(body_bytes),
        reference_response=rng.randbytes(body_bytes),
        candidate_response=rng.randbytes(body_bytes),
    )


def route(**kept: Any) -> RouteConfig:
    """Return the settings of the examples' route, with these for what is kept."""
    variants = {"stable": {"backend": "blue"}}
    fields = {"name": "digits", "match": {"model": "digits"}, "variants": variants, "kept": kept}
    return RouteConfig.model_validate(fields)


def written_bytes() -> int:
    """Return what this process has had written to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def changes(folder: Path, seconds: float) -> list[float]:
    """Make changes for a while; return how long each took to be on disk, ms, shortest first."""
    return asyncio.run(_changes(folder, seconds))


async def _changes(folder: Path, seconds: float) -> list[float]:
    store = await Store.open(folder)
    took_ms: list[float] = []
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        change = _change(len(took_ms) + 1)
        at = time.perf_counter()
        await store.append([change])
        took_ms.append((time.perf_counter() - at) * 1_000)
        await asyncio.sleep(_BETWEEN_CHANGES_S)
    await store.close()
    return sorted(took_ms)


def _change(revision: int) -> Change:
    split = Split({"stable": 9_000, "canary": 1_000}, {})
    return Change(revision, "digits", time.time_ns(), "bench", "", "weights", split, split, "")


def measured(body_bytes: int, rate: float, seconds: float) -> tuple[Written, list[float]]:
    """Return what was written, and how long changes took meanwhile."""
    here = Path(__file__).parent  # on a disk, not in memory
    processes = multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1)
    with tempfile.TemporaryDirectory(dir=here, prefix=".disk") as name, processes as pool:
        folder = Path(name)
        kept: AsyncResult[Written] = pool.apply_async(keep, (folder, body_bytes, rate, seconds))
        took: AsyncResult[list[float]] = pool.apply_async(changes, (folder, seconds))
        return kept.get(), took.get()


def told(body_bytes: int, written: Written, took_ms: Sequence[float]) -> str:
    """Return a run as a row of the table."""
    kept_bytes = written.kept * written.record_bytes
    return row(
        f"{body_bytes:,} B",
        f"{written.offered:,}",
        f"{written.kept:,}",
        f"{written.disk_bytes / written.took_s / 2**20:.2f}",
        f"{written.disk_bytes / max(kept_bytes, 1):.1f} times",
        f"{written.file_bytes / 2**20:.1f}",
        f"{took_ms[len(took_ms) // 2]:.1f}",
        f"{took_ms[int(len(took_ms) * 0.99)]:.1f}",
    )


def section(lines: Sequence[str], rate: float, seconds: float) -> str:
    """Return the section of RESULTS.md."""
    title = f"## Kept mismatches, {rate:g} a second for {seconds:g} s"
    return "\n".join([title, "", _SAID, "", row(*_TITLES), row(*["---"] * len(_TITLES)), *lines])


def main() -> int:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--bodies", type=int, nargs="+", default=BODIES)
    parser.add_argument("--dry", action="store_true", help="don't write RESULTS.md")
    asked = parser.parse_args()
    lines = [told(body, *measured(body, asked.rate, asked.seconds)) for body in asked.bodies]
    return results.tell(section(lines, asked.rate, asked.seconds), dry=asked.dry)


if __name__ == "__main__":
    sys.exit(main())
