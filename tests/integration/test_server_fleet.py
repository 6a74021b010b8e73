"""The supervisor of the workers, with programs that do nothing in the place of workers."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from coalmine.errors import StartError
from coalmine.process.lifecycle import Stop
from coalmine_server.config import ServerConfig
from coalmine_server.fleet.supervisor import Fleet
from coalmine_server.fleet.worker_slot import (
    WorkerSlot,
    WorkerStart,
    read_worker_start,
    write_worker_start,
)

# Copies its start into the folder `started`, says that it is ready, and waits for its end.
WORKER = """
import json, shutil, sys
from pathlib import Path
start = Path(sys.argv[1])
shutil.copy(start, Path({started!r}) / start.name)
mode = start.parent.stat().st_mode & 0o777
Path({started!r}, "mode").write_text(oct(mode))
print(json.dumps({{"event": "ready", "http": "127.0.0.1:1"}}), flush=True)
sys.stdin.read()
"""


def config(**fields: Any) -> ServerConfig:
    settings = {
        "repository": Path("models"),
        "listen": "127.0.0.1:0",
        "http": "127.0.0.1:0",
        "grace_s": 10.0,
        "workers": 3,
    }
    return ServerConfig(**{**settings, **fields})


async def served(config: ServerConfig, program: str, *, cores: int = 8) -> dict[str, str]:
    """Run a fleet until it is ready, and stop it; return what it announced."""
    stop, said = Stop(), {}

    def announce(**addresses: str) -> None:
        said.update(addresses)
        stop.ask("seen")

    fleet = Fleet(config, cores=cores, announce=announce, program=(sys.executable, "-c", program))
    async with asyncio.timeout(30):
        await fleet.serve(stop)
    return said


def starts_in(folder: Path) -> list[WorkerStart]:
    """Return what the workers were started with, in their order."""
    return [read_worker_start(file) for file in sorted(folder.glob("*.json"))]


async def test_it_announces_one_address_for_all(tmp_path: Path) -> None:
    said = await served(config(admin_listen="127.0.0.1:0"), WORKER.format(started=str(tmp_path)))
    assert set(said) == {"grpc", "admin", "http"}
    start = starts_in(tmp_path)
    assert [each.slot.index for each in start] == [0, 1, 2]
    assert {each.config.listen for each in start} == {said["grpc"]}
    assert {each.config.admin_listen for each in start} == {said["admin"]}
    assert {each.config.http for each in start} == {"127.0.0.1:0"}, "its own"


async def test_each_worker_has_a_folder_of_its_own_for_traces(tmp_path: Path) -> None:
    await served(config(traces=tmp_path / "traces"), WORKER.format(started=str(tmp_path)))
    folders = [each.config.traces for each in starts_in(tmp_path)]
    assert folders == [tmp_path / "traces" / f"worker-{n}" for n in range(3)]


@pytest.mark.parametrize(("cores", "share"), [(8, 2), (3, 1), (1, 1)])
async def test_all_workers_together_keep_to_the_cores(
    tmp_path: Path, cores: int, share: int
) -> None:
    await served(config(), WORKER.format(started=str(tmp_path)), cores=cores)
    assert {each.slot.cores for each in starts_in(tmp_path)} == {share}


async def test_a_worker_has_less_time_to_end_than_the_server(tmp_path: Path) -> None:
    await served(config(), WORKER.format(started=str(tmp_path)))
    assert {each.config.grace_s for each in starts_in(tmp_path)} == {8.0}


async def test_the_folder_of_the_workers_is_theirs_alone_and_goes_with_them(
    tmp_path: Path,
) -> None:
    await served(config(), WORKER.format(started=str(tmp_path)))
    folders = {each.slot.folder for each in starts_in(tmp_path)}
    assert len(folders) == 1
    assert not folders.pop().exists()
    assert (tmp_path / "mode").read_text() == "0o700"


async def test_one_that_can_not_start_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await served(config(), "raise SystemExit(2)")
    assert caught.group_contains(StartError)


async def test_a_stop_before_they_are_ready_ends_them() -> None:
    stop = Stop()
    waits = (sys.executable, "-c", "import sys; sys.stdin.read()")
    announced: list[dict[str, str]] = []
    fleet = Fleet(config(), cores=2, announce=lambda **said: announced.append(said), program=waits)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(fleet.serve(stop))
        stop.ask("early")
    assert announced == []


def test_orders_survive_the_way_through_a_file(tmp_path: Path) -> None:
    start = WorkerStart(
        config(tokens=Path("tokens.yaml"), poll_s=0.5), WorkerSlot(1, 3, 2, tmp_path)
    )
    assert read_worker_start(write_worker_start(start)) == start


def test_a_slot_knows_the_others_and_where_they_listen() -> None:
    slot = WorkerSlot(1, 3, 2, Path("/run/x"))
    assert slot.peers == (0, 2)
    assert slot.socket_address(2) == "unix:/run/x/2.sock"
