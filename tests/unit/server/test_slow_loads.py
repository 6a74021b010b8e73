"""Loads that hang or are slow: what becomes of them, and that they hold up nobody else."""

import asyncio
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import LoadFailed, StartError, Unavailable
from coalmine_server.config import LoadLimits
from coalmine_server.overview import index_of
from coalmine_server.poll import Poller
from coalmine_server.registry import State
from tests.doubles.model_rig import ModelRig, open_rig, write
from tests.doubles.waiting import eventually

LIMITS = LoadLimits(timeout_s=0.6, slow_s=0.2)
PATIENT = LoadLimits(timeout_s=60, slow_s=0.1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "a", {1: b"hangs"})
    write(tmp_path, "b", {1: b"broken"})
    for name in "cdef":
        write(tmp_path, name, {1: b"1"})
    return tmp_path


async def test_one_that_hangs_and_one_that_is_broken_hold_up_nobody(root: Path) -> None:
    with capture_logs() as logs:
        async with open_rig(root, lenient=True, limits=LIMITS) as rig:
            assert rig.registry.is_ready
            assert {rig.find(name).state for name in "cdef"} == {State.READY}
            assert rig.find("a").state is State.LOADING
            await eventually(lambda: rig.find("a").state is State.FAILED)
            rows = {row.name: (row.state, row.reason) for row in index_of(rig.registry)}
            assert rows["a"][0] == "UNAVAILABLE"
            assert "load and warm-up took longer than load_timeout, 0.6 s" in rows["a"][1]
            with pytest.raises(Unavailable, match="took longer than load_timeout"):
                rig.find("a").ready_batcher()
    events = [each["event"] for each in logs]
    assert events.count("model_load_slow") == 1
    assert events.index("model_load_slow") > events.index("model_ready")


async def test_two_that_hang_give_the_others_their_turn(root: Path) -> None:
    write(root, "b", {1: b"hangs"})
    async with open_rig(root, lenient=True, limits=PATIENT) as rig:
        await eventually(lambda: {rig.find(name).state for name in "cdef"} == {State.READY})
        await eventually(lambda: rig.registry.is_ready)
        for name in "ab":
            assert rig.find(name).state is State.LOADING
            await rig.control.unload(name)


async def test_a_start_in_the_place_of_another_waits_for_what_is_slow(root: Path) -> None:
    rig = ModelRig(root, limits=LIMITS)
    rig.control.register_models(lenient=True)
    await rig.control.open(lenient=True, waits_for_all_models=True)
    assert rig.find("a").state is State.FAILED, "not LOADING"
    assert {rig.find(name).state for name in "cdef"} == {State.READY}
    rig.runtime.let_all_run()
    assert rig.control.close(timeout_s=5)


async def test_two_are_loaded_at_a_time(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, {1: b"hangs"})
    rig = ModelRig(tmp_path)
    rig.control.register_models(lenient=True)
    opening = asyncio.ensure_future(rig.control.open(lenient=True))
    await eventually(lambda: len(rig.runtime.programs) == 2)
    await asyncio.sleep(0.05)
    assert len(rig.runtime.programs) == 2
    rig.runtime.let_all_run()
    await eventually(lambda: len(rig.runtime.programs) == 3)
    rig.runtime.let_all_run()
    await opening
    assert rig.control.close(timeout_s=5)


async def test_a_version_that_hangs_keeps_no_other_of_its_model_out(root: Path) -> None:
    write(root, "c", {2: b"hangs", 3: b"3"}, versions={"all": True})
    async with open_rig(root, lenient=True, limits=PATIENT) as rig:
        await eventually(lambda: rig.registry.serves("c"))
        assert rig.find("c").file.version == 3
        await eventually(lambda: rig.find("c", "1").state is State.READY)
        assert rig.find("c", "2").state is State.LOADING
        await rig.control.unload("c")
        await rig.control.unload("a")


async def test_what_hangs_can_be_unloaded_at_once_and_its_load_says_so(root: Path) -> None:
    async with open_rig(root, lenient=True, limits=PATIENT) as rig:
        write(root, "g", {1: b"hangs"})
        programs = len(rig.runtime.programs)
        loading = asyncio.ensure_future(rig.control.load("g"))
        await eventually(lambda: len(rig.runtime.programs) > programs)
        began_s = time.monotonic()
        for name in "ag":
            await rig.control.unload(name)
            assert rig.find(name).state is State.GONE
        assert time.monotonic() - began_s < 3
        with pytest.raises(LoadFailed, match="unloaded"):
            await loading
        assert b'stuck_threads{model="g"} 1.0' in exposed(rig)
        rig.runtime.let_all_run()
        await eventually(lambda: b"stuck_threads{" not in exposed(rig))
        write(root, "g", {1: b"1"})
        await rig.control.load("g")
        assert rig.find("g").state is State.READY


def exposed(rig: ModelRig) -> bytes:
    from prometheus_client import generate_latest  # noqa: PLC0415 - for this alone

    return generate_latest(rig.metrics.registry)


async def test_a_limit_of_its_own_stands_in_the_config(root: Path) -> None:
    write(root, "a", {1: b"hangs"}, load_timeout="50ms")
    async with open_rig(root, lenient=True, limits=PATIENT) as rig:
        await eventually(lambda: "load_timeout, 0.05 s" in rig.registry.failure_reason("a"))
        before = rig.find("c")
        write(root, "c", {}, load_timeout="9s")
        await rig.control.load("c")
        assert rig.find("c") is before, "another limit loads nothing anew"


async def test_a_strict_start_ends_at_the_limit_and_names_what_hung(tmp_path: Path) -> None:
    write(tmp_path, "a", {1: b"hangs"})
    write(tmp_path, "c", {1: b"1"})
    with pytest.raises(StartError, match=r"a/1/model\.pt: load and warm-up took longer"):
        async with open_rig(tmp_path, limits=LIMITS):
            raise AssertionError("it opened")


async def test_a_model_that_hangs_at_every_load_is_loaded_no_more(root: Path) -> None:
    write(root, "g", {1: b"hangs"}, load_timeout="10ms", instances=16)
    async with open_rig(root, lenient=True, limits=PATIENT) as rig:
        await eventually(lambda: bool(rig.registry.failure_reason("g")))
        with pytest.raises(LoadFailed, match="16 threads of this model hang"):
            await rig.control.load("g")
        await rig.control.load("c")
        await rig.control.unload("a")


async def test_the_poller_follows_others_while_one_hangs(root: Path) -> None:
    async with open_rig(root, lenient=True, limits=PATIENT) as rig:
        poller = Poller(rig.repository, rig.control)
        await poller.note_known_stamps()
        write(root, "c", {2: b"hangs"}, versions={"latest": 1})
        await poller.poll_once()
        assert rig.find("c").file.version == 1, "what served goes on"
        write(root, "d", {2: b"2"}, versions={"latest": 1})
        await poller.poll_once()
        assert rig.find("d").file.version == 2
        (root / "c").rename(root / ".c")
        await poller.poll_once()
        await eventually(lambda: "c" not in rig.registry.names)
        await rig.control.unload("a")
