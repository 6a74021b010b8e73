import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import InvalidRequest, LoadFailed, NotFound, StartError, Unavailable
from coalmine_server.overview import index_of
from coalmine_server.registry import State
from tests.doubles.model_rig import ModelRig, open_rig, write
from tests.doubles.server_parts import FakeProgram
from tests.doubles.waiting import eventually


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "a", {1: b"1", 2: b"2"}, versions={"all": True})
    write(tmp_path, "b", {7: b"7"})
    return tmp_path


def index(rig: ModelRig) -> list[tuple[str, str, str, str]]:
    return [(each.name, each.version, each.state, each.reason) for each in index_of(rig.registry)]


# ---------------------------------------------------------------- the start


async def test_versions_are_loading_until_they_are_warm_and_then_ready(root: Path) -> None:
    rig = ModelRig(root)
    rig.control.register_models(lenient=False)
    assert set(rig.states().values()) == {State.LOADING}
    assert not rig.registry.is_ready
    with pytest.raises(Unavailable, match="model 'a' version 2 is LOADING, not READY"):
        rig.find("a", "2").ready_batcher()
    async with open_rig(root) as opened:
        assert set(opened.states().values()) == {State.READY}
        assert opened.registry.is_ready
        assert all(program.runs for program in opened.runtime.programs), "ready means warm"
        assert opened.notified[-2:] == [("a", True), ("b", True)]


async def test_each_instance_is_a_copy_of_its_own_with_its_share_of_the_cores(root: Path) -> None:
    write(root, "c", {1: b"1"}, instances=2)
    async with open_rig(root, cores=4) as rig:
        assert len(rig.runtime.programs) == 5
        assert sorted(rig.runtime.threads) == [2, 2, 4, 4, 4]


async def test_a_thread_always_has_one_core(root: Path) -> None:
    write(root, "c", {1: b"1"}, instances=3)
    async with open_rig(root, cores=2) as rig:
        assert sorted(rig.runtime.threads) == [1, 1, 1, 2, 2, 2]


async def test_a_model_that_cannot_be_loaded_stops_the_start_and_is_named(root: Path) -> None:
    write(root, "aa", {1: b"broken"}, instances=2)
    with pytest.raises(StartError, match=r"aa/1/model\.pt: not a model"):
        async with open_rig(root):
            raise AssertionError("it opened")


async def test_an_empty_repository_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"no NAME/config\.yaml in it"):
        ModelRig(tmp_path).control.register_models(lenient=False)
    ModelRig(tmp_path).control.register_models(lenient=True)


async def test_a_lenient_start_serves_what_it_can_and_says_what_it_cannot(root: Path) -> None:
    write(root, "broken", {1: b"broken"})
    (root / "unread").mkdir()
    (root / "unread" / "config.yaml").write_text("platform: nonsense")
    async with open_rig(root, lenient=True) as rig:
        assert rig.registry.is_ready
        assert rig.find("b").state is State.READY
        by_name = {name: (state, reason) for name, _, state, reason in index(rig)}
        assert by_name["broken"][0] == by_name["unread"][0] == "UNAVAILABLE"
        assert "not a model" in by_name["broken"][1]
        assert "platform" in by_name["unread"][1]
        with pytest.raises(Unavailable, match=r"model 'unread' can't be served: .*platform"):
            rig.find("unread")
        with pytest.raises(Unavailable, match=r"is FAILED, not READY: .*not a model"):
            rig.find("broken").ready_batcher()


# ---------------------------------------------------------------- load and replace


async def test_a_new_model_is_served_once_it_is_loaded(root: Path) -> None:
    async with open_rig(root) as rig:
        write(root, "c", {1: b"1"})
        with pytest.raises(NotFound, match="model 'c' is unknown"):
            rig.find("c")
        await rig.control.load("c")
        assert rig.states("c") == {"c/1": State.READY}
        assert rig.notified[-1] == ("c", True)


async def test_a_new_version_is_served_beside_those_that_go_on(root: Path) -> None:
    async with open_rig(root) as rig:
        first, programs = rig.find("a", "1"), len(rig.runtime.programs)
        write(root, "a", {3: b"3"}, versions={"all": True})
        await rig.control.load("a")
        assert list(rig.states("a")) == ["a/1", "a/2", "a/3"]
        assert rig.find("a", "1") is first
        assert len(rig.runtime.programs) == programs + 1, "what runs already is left alone"
        assert rig.find("a").file.version == 3


async def test_what_a_request_began_with_is_what_answers_it(root: Path) -> None:
    async with open_rig(root) as rig:
        old = rig.find("b")
        program = rig.runtime.program_of(b"7")
        program.gate.clear()
        running = rig.enter(old)
        waiting = rig.enter(old)
        write(root, "b", {7: b"another 7"})
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(rig.control.load("b"))
            await eventually(lambda: old.state is State.DRAINING)
            assert rig.find("b") is not old
            assert rig.find("b").state is State.READY, "the new one is warm before the old one goes"
            assert not loading.done(), "the load is over when the old version is gone"
            program.gate.set()
        assert old.state is State.GONE
        assert old.batcher is None
        assert not old.workers
        for pending in (running, waiting):
            assert not isinstance(pending.future.result(), Exception)


async def test_a_broken_version_keeps_no_other_out_and_takes_none_down(root: Path) -> None:
    async with open_rig(root) as rig:
        before = rig.find("a", "1")
        write(root, "a", {3: b"broken", 4: b"4"}, versions={"latest": 2})
        with pytest.raises(LoadFailed, match=r"model 'a': .*a/3/model\.pt: not a model"):
            await rig.control.load("a")
        assert rig.find("a", "1") is before
        before.ready_batcher()
        assert rig.find("a").file.version == 4, "what loads is served"
        rows = {version: row for name, version, *row in index(rig) if name == "a"}
        assert [(key, state) for key, (state, _) in sorted(rows.items())] == [
            ("1", "READY"),
            ("2", "READY"),
            ("3", "UNAVAILABLE"),
            ("4", "READY"),
        ]
        assert "not a model" in rows["3"][1]
        with pytest.raises(Unavailable, match=r"version 3 is FAILED, not READY: .*not a model"):
            rig.find("a", "3").ready_batcher()
        assert rig.notified[-1] == ("a", True)
        write(root, "a", {3: b"mended"}, versions={"latest": 2})
        await rig.control.load("a")
        assert list(rig.states("a")) == ["a/3", "a/4"], "once all serve, the policy holds"


async def test_where_nothing_of_a_change_loads_what_served_goes_on(root: Path) -> None:
    async with open_rig(root) as rig:
        before = rig.find("b")
        write(root, "b", {7: b"broken", 8: b"broken"}, versions={"latest": 1})
        with pytest.raises(LoadFailed, match=r"b/8/model\.pt: not a model"):
            await rig.control.load("b")
        assert rig.find("b") is before
        before.ready_batcher()


async def test_at_a_lenient_start_the_newest_that_loads_is_the_newest(root: Path) -> None:
    write(root, "a", {3: b"broken"}, versions={"all": True}, labels={"old": 1, "new": 3})
    async with open_rig(root, lenient=True) as rig:
        assert rig.find("a").file.version == 2
        assert rig.find("a", "old").state is State.READY
        with pytest.raises(Unavailable, match="not a model"):
            rig.find("a", "new").ready_batcher()
        assert ("a", True) in rig.notified


async def test_a_label_stays_where_it_leads_until_its_new_version_serves(root: Path) -> None:
    write(root, "a", {}, versions={"all": True}, labels={"stable": 1, "canary": 2})
    async with open_rig(root) as rig:
        labels = {"stable": 2, "canary": 3}
        write(root, "a", {3: b"broken"}, versions={"all": True}, labels=labels)
        with pytest.raises(LoadFailed, match="not a model"):
            await rig.control.load("a")
        assert rig.find("a", "stable").file.version == 2
        assert rig.find("a", "canary").file.version == 2


async def test_a_version_that_cannot_be_replaced_has_one_row_and_serves(root: Path) -> None:
    async with open_rig(root) as rig:
        write(root, "b", {7: b"broken"})
        with pytest.raises(LoadFailed):
            await rig.control.load("b")
        ((_, version, state, reason),) = [row for row in index(rig) if row[0] == "b"]
        assert (version, state) == ("7", "READY")
        assert "not a model" in reason


async def test_where_nothing_that_there_is_can_be_served_the_server_is_not_ready(
    tmp_path: Path,
) -> None:
    write(tmp_path, "broken", {1: b"broken"})
    async with open_rig(tmp_path, lenient=True) as rig:
        assert not rig.registry.is_ready
        write(tmp_path, "broken", {1: b"mended"})
        await rig.control.load("broken")
        assert rig.registry.is_ready


async def test_a_load_that_succeeds_takes_the_reason_away(root: Path) -> None:
    async with open_rig(root) as rig:
        write(root, "b", {7: b"broken"})
        with pytest.raises(LoadFailed):
            await rig.control.load("b")
        assert rig.find("b").state is State.READY
        write(root, "b", {7: b"7"})
        await rig.control.load("b")
        assert [row for row in index(rig) if row[0] == "b"] == [("b", "7", "READY", "")]


async def test_bytes_that_are_not_those_of_the_config_are_never_served(root: Path) -> None:
    async with open_rig(root) as rig:
        (root / "b" / "7" / "model.pt").write_bytes(b"half")
        with (root / "b" / "config.yaml").open("a") as config:
            config.write("instances: 2\n")
        with pytest.raises(LoadFailed, match="expected sha256"):
            await rig.control.load("b")
        assert rig.find("b").config.instances == 1


async def test_another_setting_loads_a_version_anew_and_another_label_does_not(root: Path) -> None:
    async with open_rig(root) as rig:
        first = rig.find("a", "1")
        write(root, "a", {}, versions={"all": True}, labels={"stable": 1})
        await rig.control.load("a")
        assert rig.find("a", "stable") is first
        assert first.config.labels == {"stable": 1}
        write(root, "a", {}, versions={"all": True}, batching={"max_delay": "5ms"})
        await rig.control.load("a")
        assert rig.find("a", "1") is not first


async def test_a_caller_who_goes_away_leaves_no_load_half_done(root: Path) -> None:
    async with open_rig(root) as rig:
        gated = FakeProgram()
        gated.gate.clear()
        rig.runtime.next_program = gated
        write(root, "c", {1: b"1"})
        loading = asyncio.ensure_future(rig.control.load("c"))
        await eventually(lambda: gated in rig.runtime.programs)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        gated.gate.set()
        await eventually(lambda: rig.find("c").state is State.READY)


async def test_changes_of_one_model_wait_for_each_other(root: Path) -> None:
    async with open_rig(root) as rig:
        write(root, "c", {1: b"1"})
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(rig.control.load("c"))
        assert len(rig.runtime.programs) == 4, "the later ones find it loaded"


# ---------------------------------------------------------------- labels


async def test_a_label_is_a_name_for_a_version(root: Path) -> None:
    write(root, "a", {}, versions={"all": True}, labels={"stable": 1, "canary": 2})
    async with open_rig(root) as rig:
        assert rig.find("a", "stable") is rig.find("a", "1")
        assert rig.find("a", "canary") is rig.find("a", "2")
        with pytest.raises(NotFound, match="no version 'old', only 1, 2, canary, stable"):
            rig.find("a", "old")


async def test_a_label_cannot_be_pointed_at_a_version_that_is_not_ready(root: Path) -> None:
    write(root, "a", {}, versions={"all": True}, labels={"stable": 1})
    async with open_rig(root) as rig:
        write(root, "a", {}, versions={"all": True}, labels={"stable": 9})
        with pytest.raises(LoadFailed, match=r"labels\.stable: leads to version 9"):
            await rig.control.load("a")
        assert rig.find("a", "stable") is rig.find("a", "1")
        write(root, "a", {3: b"broken"}, versions={"all": True}, labels={"stable": 3})
        with pytest.raises(LoadFailed, match="not a model"):
            await rig.control.load("a")
        assert rig.find("a", "stable") is rig.find("a", "1")


async def test_a_label_for_a_version_that_is_not_served_stops_the_start(root: Path) -> None:
    write(root, "a", {}, versions={"latest": 1}, labels={"old": 1})
    with pytest.raises(StartError, match=r"labels\.old: leads to version 1"):
        ModelRig(root).control.register_models(lenient=False)


# ---------------------------------------------------------------- unload


async def test_an_unloaded_model_is_unavailable_until_it_is_loaded_again(root: Path) -> None:
    async with open_rig(root) as rig:
        await rig.control.unload("b")
        assert rig.states("b") == {"b/7": State.GONE}
        assert ("b", "7", "UNAVAILABLE", "unloaded") in index(rig)
        with pytest.raises(Unavailable, match="is GONE, not READY: unloaded"):
            rig.find("b").ready_batcher()
        assert rig.notified[-1] == ("b", False)
        assert rig.registry.is_ready, "the server answers for the others"
        await rig.control.load("b")
        assert rig.find("b").state is State.READY


async def test_an_unload_waits_for_what_is_in_flight(root: Path) -> None:
    async with open_rig(root) as rig:
        program = rig.runtime.program_of(b"7")
        program.gate.clear()
        pending = rig.enter(rig.find("b"))
        async with asyncio.TaskGroup() as group:
            unloading = group.create_task(rig.control.unload("b"))
            await eventually(lambda: rig.find("b").state is State.DRAINING)
            assert not unloading.done()
            program.gate.set()
        assert not isinstance(pending.future.result(), Exception)


async def test_a_removed_model_is_known_no_more(root: Path) -> None:
    async with open_rig(root) as rig:
        await rig.control.remove("b")
        with pytest.raises(NotFound, match="model 'b' is unknown"):
            rig.find("b")


async def test_a_model_that_could_never_be_served_goes_with_its_folder(root: Path) -> None:
    write(root, "unread", {1: b"1"}, platform="nonsense")
    async with open_rig(root, lenient=True) as rig:
        with pytest.raises(Unavailable, match="can't be served"):
            rig.find("unread")
        await rig.control.remove("unread")
        with pytest.raises(NotFound, match="model 'unread' is unknown"):
            rig.find("unread")
        assert "unread" not in [name for name, *_ in index(rig)]


@pytest.mark.parametrize("name", ["", "../b", "a/b", ".a", "a b", "a\x00", "a" * 256])
async def test_a_name_that_is_none_reaches_no_disk(root: Path, name: str) -> None:
    async with open_rig(root) as rig:
        for change in (rig.control.load, rig.control.unload):
            with pytest.raises(InvalidRequest, match="is not a model's name"):
                await change(name)


async def test_what_is_not_there_can_be_neither_loaded_nor_unloaded(root: Path) -> None:
    async with open_rig(root) as rig:
        with pytest.raises(NotFound, match="model 'nobody' is not in the repository"):
            await rig.control.load("nobody")
        with pytest.raises(NotFound, match="model 'nobody' is unknown"):
            await rig.control.unload("nobody")
        assert "nobody" not in dict(rig.notified), "or anybody's guesses would fill the memory"


async def test_every_version_that_goes_is_logged_with_why(root: Path) -> None:
    async with open_rig(root) as rig:
        with capture_logs() as logs:
            write(root, "a", {3: b"3"}, versions={"latest": 2})
            await rig.control.load("a")
            write(root, "a", {2: b"another 2"}, versions={"latest": 2})
            await rig.control.load("a")
            await rig.control.unload("b")
            await rig.control.remove("a")
        gone = [each for each in logs if each["event"] == "model_unloaded"]
        assert [(each["model"], each["version"], each["reason"]) for each in gone] == [
            ("a", 1, "'versions' in config.yaml serves only 2, 3 of what is there"),
            ("a", 2, "replaced: its file or its settings are others"),
            ("b", 7, "unloaded"),
            ("a", 2, "removed from the repository"),
            ("a", 3, "removed from the repository"),
        ]


# ---------------------------------------------------------------- the end


async def test_draining_is_neither_ready_nor_deaf_to_what_is_in_flight(root: Path) -> None:
    async with open_rig(root) as rig:
        pending = rig.enter(rig.find("b"))
        rig.registry.drain()
        assert set(rig.states().values()) == {State.DRAINING}
        assert not rig.registry.is_ready
        with pytest.raises(Unavailable, match="is DRAINING"):
            rig.find("a", "1").ready_batcher()
        assert not isinstance(await pending.future, Exception)


async def test_nothing_can_be_changed_before_the_start_and_after_the_end(root: Path) -> None:
    async def refused(rig: ModelRig) -> None:
        for change in (rig.control.load, rig.control.unload, rig.control.remove):
            with pytest.raises(Unavailable, match="the server starts or ends"):
                await change("a")

    await refused(ModelRig(root))
    async with open_rig(root) as rig:
        await rig.control.load("a")
    await refused(rig)


async def test_who_waits_for_a_change_that_the_end_cuts_short_is_told(root: Path) -> None:
    async with open_rig(root) as rig:
        gated = rig.runtime.next_program = FakeProgram()
        gated.gate.clear()
        write(root, "c", {1: b"1"})
        loading = asyncio.ensure_future(rig.control.load("c"))
        await eventually(lambda: gated in rig.runtime.programs)
    with pytest.raises(Unavailable, match="the server ends: the change was given up"):
        await loading


async def test_an_end_while_an_old_version_drains_waits_for_its_thread_too(root: Path) -> None:
    rig = ModelRig(root)
    rig.control.register_models(lenient=False)
    await rig.control.open(lenient=False)
    old, stuck = rig.find("b"), rig.runtime.program_of(b"7")
    stuck.gate.clear()
    async with rig.control.accept_changes():
        running = rig.enter(old)
        write(root, "b", {7: b"another 7"})
        loading = asyncio.ensure_future(rig.control.load("b"))
        await eventually(lambda: old.state is State.DRAINING)
    with pytest.raises(Unavailable, match="given up"):
        await loading
    assert not rig.control.close(timeout_s=0.01)
    stuck.gate.set()
    assert rig.control.close(timeout_s=5)
    assert not isinstance(await running.future, Exception), "it was in flight"


async def test_a_thread_that_does_not_end_is_not_forgotten_with_its_version(root: Path) -> None:
    async with open_rig(root) as rig:
        stuck = rig.runtime.program_of(b"7")
        stuck.gate.clear()
        rig.enter(rig.find("b"))
        for _ in range(2):
            assert not rig.control.close(timeout_s=0.01)
        stuck.gate.set()
        assert rig.control.close(timeout_s=5)


async def test_closing_says_where_a_forward_never_returns(root: Path) -> None:
    async with open_rig(root) as rig:
        stuck = rig.runtime.program_of(b"7")
        stuck.gate.clear()
        rig.enter(rig.find("b"))
        assert not rig.control.close(timeout_s=0.01)
        assert set(rig.states().values()) == {State.GONE}
        stuck.gate.set()


async def test_an_opening_that_is_given_up_leaves_threads_that_end(root: Path) -> None:
    gated = FakeProgram()
    gated.gate.clear()
    rig = ModelRig(root)
    rig.runtime.next_program = gated
    rig.control.register_models(lenient=False)
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(rig.control.open(lenient=False))
        await eventually(lambda: gated in rig.runtime.programs)
        opening.cancel()
    assert not rig.registry.is_ready
    gated.gate.set()
    assert rig.control.close(timeout_s=5)
