"""The subscriber against a real TableFeed: whole tables or none, the last one kept on disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from structlog.testing import capture_logs

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from coalmine_router.proxy.subscriber import Subscriber
from coalmine_router.table import RouteTable
from tests.doubles.control_process import ControlProcess


class Follower:
    """A subscriber with the tables it took."""

    def __init__(self, folder: Path) -> None:
        self.taken: list[RouteTable] = []
        self.file = folder / "route-table.pb"
        self.subscriber = Subscriber("p1", self.file, self.taken.append)

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
    assert follower.taken == []


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
