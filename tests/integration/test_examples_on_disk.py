"""What the kernel says was written for the examples of a canary that fails all the time."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.examples_disk import example, route, written_bytes
from coalmine_router.observer.examples.example_store import ExampleStore
from tests.doubles.clock import HandClock

RATE = 156
SECONDS = 60
INTERVAL_S = 5


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder on a disk, where tests run on one: memory isn't written to."""
    path = Path(tempfile.mkdtemp(dir=Path(__file__).parent, prefix=".disk"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize(("body_bytes", "ratio_max"), [(64 * 1024, 3), (1_024, 4), (256, 6)])
async def test_few_bytes_are_written_for_many_mismatches(
    folder: Path, body_bytes: int, ratio_max: float
) -> None:
    clock, rng = HandClock(), random.Random(1)
    # So few that most of what comes pushes something out.
    routes = {"digits": route(newest=20, worst=20)}
    kept = ExampleStore(folder / "m.db", routes=routes, clock=clock)
    before = written_bytes()
    for _ in range(SECONDS // INTERVAL_S):
        for _ in range(RATE * INTERVAL_S):
            kept.offer(example(clock.now_ns, body_bytes, rng))
        clock.now_ns += INTERVAL_S * 10**9
        await kept.write()
    written, count = written_bytes() - before, kept.totals()["kept"]
    await kept.close()
    data = count * example(0, body_bytes, rng).ByteSize()
    if written == 0:
        pytest.skip("this file system is in memory")
    assert written <= 2 * 2**20 * SECONDS
    assert written <= ratio_max * data
    assert count >= 90
