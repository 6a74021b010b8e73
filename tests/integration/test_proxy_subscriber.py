"""The subscriber against a real TableFeed: whole tables or none, the last one kept on disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from structlog.testing import capture_logs

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from coalmine.errors import InvalidRequest
from coalmine_router.proxy.subscriber import Subscriber
from coalmine_router.table import RouteTable
from tests.doubles.control_process import ControlProcess
from tests.doubles.waiting import eventually


class Reached:
    """What is reached, as the test has it."""

    def __init__(self) -> None:
        self._now: list[pb.VariantReach] = []
        self._changed = asyncio.Event()

    def reach(self) -> list[pb.VariantReach]:
        return self._now

    async def wait_for_reach_change(self) -> None:
        self._changed = asyncio.Event()
        await self._changed.wait()

    def set(self, available: int) -> None:
        self._now = [pb.VariantReach(route="d", variant="canary", addresses=9, available=available)]
        self._changed.set()


class Follower:
    """A subscriber with the tables it took. Those with a revision in `unusable` it can't use."""

    def __init__(self, folder: Path) -> None:
        self.taken: list[RouteTable] = []
        self.unusable: set[int] = set()
        self.reached = Reached()
        self.file = folder / "route-table.pb"
        self.subscriber = Subscriber(
            "p1", self.file, self._take, self.reached, SystemClock(), again_s=0.05
        )

    def _take(self, table: RouteTable) -> None:
        if table.revision in self.unusable:
            raise InvalidRequest("backend 'blue': ca.pem: can't be read")
        self.taken.append(table)

    @property
    def revisions(self) -> list[int]:
        return [table.revision for table in self.taken]

    @contextlib.asynccontextmanager
    async def following(self, address: str) -> AsyncIterator[None]:
        options = [
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.initial_reconnect_backoff_ms", 50),
        ]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            feed = control_pb2_grpc.TableFeedStub(channel)
            task = asyncio.create_task(self.subscriber.run(feed.Follow))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def table(revision: int, *, canary_bp: int = 0) -> pb.RouteTable:
    variants = [
        pb.Variant(name="stable", backend="blue", weight_bp=10_000 - canary_bp),
        pb.Variant(name="canary", backend="blue", weight_bp=canary_bp),
    ]
    return pb.RouteTable(
        revision=revision,
        backends=[pb.Backend(name="blue", targets=["127.0.0.1:1"])],
        routes=[pb.Route(name="d", match_model="d", variants=variants, timeout_ns=10**9)],
    )


async def test_each_table_is_taken_acknowledged_and_kept(tmp_path: Path) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        async with follower.following(control.address):
            for revision in (1, 2):
                await control.push(table(revision))
                await control.wait(lambda: control.states[-1:] != [] and _acked(control, revision))  # noqa: B023
        assert follower.revisions == [1, 2]
        assert pb.RouteTable.FromString(follower.file.read_bytes()) == table(2)


def _acked(control: ControlProcess, revision: int) -> bool:
    return control.states[-1].revision == revision


async def test_a_table_with_anything_wrong_is_refused_as_a_whole(tmp_path: Path) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        async with follower.following(control.address):
            await control.push(table(1))
            await control.wait(lambda: control.states != [] and _acked(control, 1))
            wrong = table(2)
            wrong.routes[0].variants[0].weight_bp = 1
            await control.push(wrong)
            await control.wait(lambda: bool(control.states[-1].refused))
        assert control.states[-1].revision == 1
        assert "weights add up to" in control.states[-1].refused
        assert follower.revisions == [1]
        assert pb.RouteTable.FromString(follower.file.read_bytes()) == table(1)


async def test_a_refused_table_is_taken_once_what_it_needs_is_there(tmp_path: Path) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        follower.unusable = {1}
        async with follower.following(control.address):
            await control.push(table(1))
            await control.wait(lambda: control.states != [] and bool(control.states[-1].refused))
            follower.unusable = set()
            await control.wait(lambda: _acked(control, 1))
        assert follower.revisions == [1]
        assert follower.file.exists()


async def test_a_saved_table_that_cannot_be_used_yet_is_used_as_soon_as_it_can(
    tmp_path: Path,
) -> None:
    follower = Follower(tmp_path)
    follower.file.write_bytes(table(4).SerializeToString())
    follower.unusable = {4}
    assert not follower.subscriber.start_from_disk()
    async with follower.following("127.0.0.1:1"):
        follower.unusable = set()
        async with asyncio.timeout(10):
            await follower.subscriber.serving.wait()
    assert follower.revisions == [4]


async def test_a_table_whose_backends_cannot_be_called_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        follower.unusable = {2}
        async with follower.following(control.address):
            await control.push(table(1))
            await control.wait(lambda: control.states != [] and _acked(control, 1))
            await control.push(table(2))
            await control.wait(lambda: bool(control.states[-1].refused))
            refused = control.states[-1]
            follower.reached.set(available=3)
            await control.wait(lambda: bool(control.states[-1].reach))
            assert control.states[-1].refused == refused.refused
            await control.push(table(3))
            await control.wait(lambda: _acked(control, 3))
        assert (refused.revision, refused.refused_revision) == (1, 2)
        assert refused.refused == "revision 2: backend 'blue': ca.pem: can't be read"
        assert control.states[-1].refused == ""
        assert follower.revisions == [1, 3]


async def test_what_is_reached_is_said_at_first_and_when_it_is_another_once_a_second(
    tmp_path: Path,
) -> None:
    def said() -> list[int]:
        return [each.available for state in control.states for each in state.reach]

    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        follower.reached.set(available=1)
        async with follower.following(control.address):
            await control.push(table(1))
            await control.wait(lambda: control.states != [] and _acked(control, 1))
            assert said()[-1] == 1
            began_s = asyncio.get_running_loop().time()
            follower.reached.set(available=0)
            await control.wait(lambda: said()[-1] == 0)
            assert asyncio.get_running_loop().time() - began_s < 1.5
            for available in (2, 3, 4):
                follower.reached.set(available)
                await asyncio.sleep(0.05)
            await control.wait(lambda: said()[-1] == 4)
            assert asyncio.get_running_loop().time() - began_s > 0.8
        assert not {2, 3} & set(said())
        assert control.states[-1].revision == 1


async def test_the_first_word_to_control_is_the_revision_of_the_table_on_disk(
    tmp_path: Path,
) -> None:
    follower = Follower(tmp_path)
    follower.file.write_bytes(table(7).SerializeToString())
    with capture_logs() as logs:
        assert follower.subscriber.start_from_disk()
    async with ControlProcess() as control, follower.following(control.address):
        await control.push(table(8))
        await control.wait(lambda: control.states != [])
        assert control.states[0].revision == 7
        await control.wait(lambda: _acked(control, 8))
    assert [(each["event"], each["revision"]) for each in logs] == [("serving_saved_table", 7)]


async def test_it_follows_again_when_control_comes_back(tmp_path: Path) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        async with follower.following(control.address):
            await control.push(table(1))
            await control.wait(lambda: control.states != [] and _acked(control, 1))
            await control.stop()
            await control.start()
            await control.push(table(5))
            await control.wait(lambda: _acked(control, 5))
        assert follower.revisions[-1] == 5


def test_without_control_the_table_on_disk_serves(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    follower.file.write_bytes(table(7, canary_bp=2_500).SerializeToString())
    assert follower.subscriber.start_from_disk()
    assert follower.subscriber.serving.is_set()
    assert follower.taken[0].route("d").weights_bp == {"stable": 7_500, "canary": 2_500}


def test_no_table_or_a_torn_one_is_no_reason_not_to_start(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert not follower.subscriber.start_from_disk()
    for torn in (b"", b"\x0a\xff", table(7).SerializeToString()[:-3]):
        follower.file.write_bytes(torn)
        assert not follower.subscriber.start_from_disk()
    follower.file.write_bytes(table(7).SerializeToString())
    follower.unusable = {7}
    assert not follower.subscriber.start_from_disk()
    assert not follower.subscriber.serving.is_set()
    assert follower.taken == []


async def test_a_table_that_the_disk_does_not_take_is_told_once_and_saved_later(
    tmp_path: Path,
) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        follower.file.mkdir()
        with capture_logs() as logs:
            async with follower.following(control.address):
                for revision in (1, 2):
                    await control.push(table(revision))
                    await control.wait(lambda: control.states != [] and _acked(control, revision))  # noqa: B023
                await control.wait(lambda: "is not saved" in control.states[-1].trouble)
                follower.file.rmdir()
                await eventually(follower.file.exists)
                await control.wait(lambda: control.states[-1].trouble == "")
    assert pb.RouteTable.FromString(follower.file.read_bytes()) == table(2)
    told = [each["event"] for each in logs if each["event"].startswith("table_")]
    assert told == ["table_not_saved", "table_saved_again"]


async def test_each_loss_of_control_is_said_once(tmp_path: Path) -> None:
    async with ControlProcess() as control:
        follower = Follower(tmp_path)
        with capture_logs() as logs:
            async with follower.following(control.address):
                for revision in (1, 2):
                    await control.push(table(revision))
                    await control.wait(lambda: control.states != [] and _acked(control, revision))  # noqa: B023
                    await control.stop()
                    await asyncio.sleep(0.5)
                    await control.start()
                await control.push(table(3))
                await control.wait(lambda: _acked(control, 3))
        lost = [each["revision"] for each in logs if each["event"] == "control_lost"]
        assert lost == [1, 2]


async def test_how_long_a_proxy_served_by_its_saved_table_is_said_until_it_is_sent_one(
    tmp_path: Path,
) -> None:
    follower = Follower(tmp_path)
    follower.file.write_bytes(table(7).SerializeToString())
    assert follower.subscriber.start_from_disk()
    async with ControlProcess() as control, follower.following(control.address):
        await control.wait(lambda: control.states != [])
        assert control.states[0].revision == 7
        assert control.states[0].saved_ns > 0
        await control.push(table(8))
        await control.wait(lambda: _acked(control, 8))
        assert control.states[-1].saved_ns == 0


async def test_the_first_word_to_a_control_process_that_was_away_is_what_was_served_without_it(
    tmp_path: Path,
) -> None:
    follower = Follower(tmp_path)
    follower.file.write_bytes(table(7).SerializeToString())
    assert follower.subscriber.start_from_disk()
    async with ControlProcess() as control:
        await control.stop()
        async with follower.following(control.address):
            await asyncio.sleep(0.7)  # three tries, each with a stream of its own
            tasks = len(asyncio.all_tasks())
            await asyncio.sleep(0.7)
            assert len(asyncio.all_tasks()) <= tasks + 2, "none is left behind by a try"
            await control.start()
            await control.push(table(8))
            await control.wait(lambda: control.states != [] and _acked(control, 8))
    assert control.states[0].revision == 7
    assert control.states[0].saved_ns > 10**9
