import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from coalmine.errors import NotFound, StartError, Unavailable
from coalmine.tensors import Array
from coalmine_server.metrics import Metrics
from coalmine_server.registry import Registry, State
from coalmine_server.repository import Repository
from coalmine_server.signature import Checked
from tests.doubles.server_parts import FakeProgram, FakeRuntime, FakeTime
from tests.models import config


def write(root: Path, name: str, files: dict[int, bytes], **content: object) -> None:
    tensor = [{"name": "x", "datatype": "FP32", "shape": [2]}]
    for number, data in files.items():
        (root / name / str(number)).mkdir(parents=True)
        (root / name / str(number) / "model.pt").write_bytes(data)
    hashes = {str(number): hashlib.sha256(data).hexdigest() for number, data in files.items()}
    written = {**config(inputs=tensor, outputs=tensor), "sha256": hashes, **content}
    (root / name / "config.yaml").write_text(yaml.safe_dump(written))


class Shelf:
    """A registry over a real folder, with a runtime that is a double, on real threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = FakeRuntime()
        self.time = FakeTime()
        self.opened: list[Registry] = []

    def registry(self, cores: int = 4) -> Registry:
        made = Registry(
            Repository(self.root).models(),
            runtime=self.runtime,
            clock=self.time,
            timer=self.time,
            metrics=Metrics(),
            cores=cores,
        )
        self.opened.append(made)
        return made


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    write(tmp_path, "a", {1: b"1", 2: b"2"}, versions={"all": True})
    write(tmp_path, "b", {7: b"7"})
    made = Shelf(tmp_path)
    yield made
    for each in made.opened:
        assert each.close(timeout_s=5), "every thread ends"


def states(registry: Registry) -> list[State]:
    return [each.state for each in registry.versions()]


async def test_versions_are_loading_until_they_are_warm_and_then_ready(shelf: Shelf) -> None:
    registry = shelf.registry()
    assert states(registry) == [State.LOADING] * 3
    assert not registry.is_ready
    with pytest.raises(Unavailable, match="model 'a' version 2 is LOADING, not READY"):
        registry.find("a", "2").ready()
    await registry.open()
    assert states(registry) == [State.READY] * 3
    assert registry.is_ready
    assert all(program.runs for program in shelf.runtime.programs), "ready means warm"


async def test_a_ready_version_answers(shelf: Shelf) -> None:
    registry = shelf.registry()
    await registry.open()
    batcher = registry.find("b", "").ready()
    inputs: tuple[Array] = (np.ones((1, 2), dtype="f4"),)
    pending = batcher.enter(Checked(inputs, 1, ((2,),), (0,), raw=True, timeout_ns=None), None)
    outputs = await batcher.outcome(pending)
    assert outputs[0].tolist() == [[2, 2]]


async def test_an_empty_version_is_the_newest(shelf: Shelf) -> None:
    registry = shelf.registry()
    assert registry.find("a", "") is registry.find("a", "2")
    assert registry.names == ["a", "b"]
    assert [each.file.version for each in registry.versions("a")] == [1, 2]


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("c", "", "model 'c' is unknown"),
        ("a", "3", "model 'a' has no version '3', only 1, 2"),
        ("a", "01", "model 'a' has no version '01', only 1, 2"),
    ],
)
async def test_what_is_not_there_is_not_found(
    shelf: Shelf, name: str, version: str, text: str
) -> None:
    with pytest.raises(NotFound) as refusal:
        shelf.registry().find(name, version)
    assert str(refusal.value) == text


async def test_each_instance_is_a_copy_of_its_own_with_its_share_of_the_cores(
    shelf: Shelf,
) -> None:
    write(shelf.root, "c", {1: b"1"}, instances=2)
    await shelf.registry(cores=4).open()
    assert len(shelf.runtime.programs) == 5
    assert sorted(shelf.runtime.threads) == [2, 2, 4, 4, 4]


async def test_a_thread_always_has_one_core(shelf: Shelf) -> None:
    write(shelf.root, "c", {1: b"1"}, instances=3)
    await shelf.registry(cores=2).open()
    assert sorted(shelf.runtime.threads) == [1, 1, 1, 2, 2, 2]


async def test_a_model_that_cannot_be_loaded_stops_the_opening_and_is_named(shelf: Shelf) -> None:
    write(shelf.root, "aa", {1: b"broken"}, instances=2)
    registry = shelf.registry()
    with pytest.raises(StartError, match=r"aa/1/model\.pt: not a model"):
        await registry.open()
    assert not registry.is_ready


async def test_draining_is_neither_ready_nor_deaf_to_what_is_in_flight(shelf: Shelf) -> None:
    registry = shelf.registry()
    await registry.open()
    registry.drain()
    assert set(states(registry)) == {State.DRAINING}
    assert not registry.is_ready
    with pytest.raises(Unavailable, match="is DRAINING"):
        registry.find("a", "1").ready()


async def test_closing_says_where_a_forward_never_returns(shelf: Shelf) -> None:
    registry = shelf.registry()
    await registry.open()
    stuck = shelf.runtime.programs[-1]
    stuck.gate.clear()
    batcher = registry.find("b", "").ready()
    inputs: tuple[Array] = (np.ones((1, 2), dtype="f4"),)
    batcher.enter(Checked(inputs, 1, ((2,),), (0,), raw=True, timeout_ns=None), None)
    assert not registry.close(timeout_s=0.01)
    assert set(states(registry)) == {State.GONE}
    stuck.gate.set()


async def test_an_opening_that_is_given_up_leaves_threads_that_end(shelf: Shelf) -> None:
    gated: list[FakeProgram] = []

    def slow() -> FakeProgram:
        program = FakeProgram()
        program.gate.clear()
        gated.append(program)
        return program

    shelf.runtime = FakeRuntime(slow)
    registry = shelf.registry()
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(registry.open())
        await _until(lambda: bool(gated))
        opening.cancel()
    assert not registry.is_ready
    for each in gated:
        each.gate.set()


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0)
