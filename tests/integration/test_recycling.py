"""Workers that are old or large give their place to others: programs that do nothing else."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from structlog.testing import capture_logs

from coalmine.process.child_process import Child, Command
from coalmine.process.recycling import Recycling, resident_mib
from coalmine.process.worker_bounds import WorkerBounds
from tests.doubles.waiting import eventually

Logs = list[MutableMapping[str, Any]]

READY = """
import json, os, sys
print(json.dumps({"event": "ready", "pid": os.getpid()}), flush=True)
"""
WAITS = READY + "sys.stdin.read()"
LARGE = "held = b'x' * 100_000_000" + WAITS
# The first one of a folder is large; later ones aren't.
GROWN = """
import pathlib, sys
first = pathlib.Path(sys.argv[1])
held = b'' if first.exists() else b'x' * 100_000_000
first.touch()
"""
LARGE_MIB = 80
OLD_S = 1.0


def worker(program: str, name: str = "worker-0", word: str = "") -> Child:
    return Child(Command(name, (word,), program=(sys.executable, "-c", program)), 10.0)


@contextlib.asynccontextmanager
async def recycled(bounds: WorkerBounds, *workers: Child) -> AsyncIterator[Recycling]:
    """Keep the workers and recycle them within the block."""

    async def replace(each: Child) -> bool:
        return await each.replace(within_s=20)

    recycling = Recycling(bounds, workers, replace, looks_each_s=0.05)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for each in workers:
            tasks.create_task(each.keep_running())
            await each.ready.wait()
        running = tasks.create_task(recycling.run())
        yield recycling
        running.cancel()
        for each in workers:
            await each.end()


def named(logs: Logs, event: str) -> Logs:
    return [each for each in logs if each["event"] == event]


async def test_an_old_one_is_replaced_again_and_again_and_no_death_is_counted() -> None:
    with capture_logs() as logs:
        async with recycled(WorkerBounds(age_s=0.3), worker(WAITS)) as recycling:
            await eventually(lambda: recycling.recycled["worker-0"] >= 3)
    told = named(logs, "worker_recycled")
    assert {each["why"] for each in told} == {"it is older than 0.3 s"}
    assert all(each["old"] != each["new"] for each in told)
    assert named(logs, "process_died") == []


async def test_one_that_has_grown_is_replaced_once(tmp_path: Any) -> None:
    large = worker(GROWN + WAITS, word=str(tmp_path / "first"))
    with capture_logs() as logs:
        async with recycled(WorkerBounds(resident_mib=LARGE_MIB), large) as recycling:
            await eventually(lambda: recycling.recycled["worker-0"] == 1)
            assert resident_mib(large.pid) < LARGE_MIB
    assert "MiB of memory, over 80" in named(logs, "worker_recycled")[0]["why"]
    assert named(logs, "worker_bound_too_small") == []


async def test_where_the_next_one_is_as_large_it_is_said_and_left_in_peace() -> None:
    with capture_logs() as logs:
        async with recycled(WorkerBounds(resident_mib=LARGE_MIB), worker(LARGE)) as recycling:
            await eventually(lambda: named(logs, "worker_bound_too_small"))
            assert recycling.recycled["worker-0"] == 1
            second = worker(WAITS)  # so many looks later
            async with recycled(WorkerBounds(age_s=0.3), second) as other:
                await eventually(lambda: other.recycled["worker-0"] == 2)
            assert recycling.recycled["worker-0"] == 1


async def test_never_are_two_replaced_at_a_time() -> None:
    workers = [worker(WAITS, f"worker-{n}") for n in range(3)]
    with capture_logs() as logs:
        async with recycled(WorkerBounds(age_s=0.5), *workers) as recycling:
            await eventually(lambda: recycling.recycled.total() >= 4)
    told = [each["event"] for each in logs][3:]
    for started, ended in zip(told[::2], told[1::2], strict=False):
        assert (started, ended) == ("process_started", "worker_recycled")


async def test_one_whose_successor_does_not_start_stays() -> None:
    mortal = worker(WAITS)
    async with recycled(WorkerBounds(age_s=0.3), mortal) as recycling:
        old = mortal.pid
        mortal.command = Command("worker-0", (), (sys.executable, "-c", "raise SystemExit(1)"))
        await eventually(lambda: mortal.failures == 1)
        assert (mortal.pid, mortal.is_up) == (old, True)
        assert recycling.recycled.total() == 0


def test_of_a_process_that_is_gone_no_memory_is_told() -> None:
    assert resident_mib(2**22 + 1) == 0
