"""The intake over real gRPC: each batch acknowledged, none counted twice, no harm from odd ones."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc as pb_grpc
from coalmine_router.observer.intake import ReportIntake
from coalmine_router.observer.totals import ReportTotals
from tests.doubles.observing import Observing, observing
from tests.doubles.reports import UNUSED, report, router_config


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Observing]:
    async with observing(router_config(stable=UNUSED, canary=UNUSED), tmp_path) as rig:
        yield rig


def batch(number: int, *, reports: int = 1, proxy_id: str = "p1") -> pb.ReportBatch:
    return pb.ReportBatch(
        proxy_id=proxy_id,
        number=number,
        reports=[report() for _ in range(reports)],
        offered_total=number * reports,
        sent_total=(number - 1) * reports if number else 0,
    )


async def read(call: "grpc.aio.StreamStreamCall[pb.ReportBatch, pb.ReportAck]") -> int:
    ack = await call.read()
    assert isinstance(ack, pb.ReportAck)
    return ack.number


async def test_each_batch_is_acknowledged_once_its_reports_are_counted(rig: Observing) -> None:
    call = rig.stub.Send()
    for number in (1, 2, 3):
        await call.write(batch(number, reports=200))
        assert await read(call) == number
        assert rig.status().reports.received == number * 200
        assert rig.status().variants[0].requests == number * 200
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_batch_that_comes_again_is_acknowledged_and_not_counted(rig: Observing) -> None:
    assert await rig.send_batch(batch(1), batch(2)) == 2
    assert await rig.send_batch(batch(1), batch(2), batch(3)) == 3
    assert await rig.send_batch(batch(1, proxy_id="p2")) == 1

    counted = rig.status().reports
    assert (counted.offered, counted.received) == (4, 4)


@pytest.mark.parametrize(
    "odd",
    [batch(0), batch(1, proxy_id=""), batch(1, proxy_id="x" * 129)],
    ids=["number 0", "no id", "a long id"],
)
async def test_an_odd_batch_ends_its_stream_and_counts_nothing(
    rig: Observing, odd: pb.ReportBatch
) -> None:
    call = rig.stub.Send()
    await call.write(odd)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.status().reports.received == 0
    assert await rig.send_batch(batch(1)) == 1


async def test_numbers_that_jump_or_go_back_harm_no_other_proxy(rig: Observing) -> None:
    await rig.send_batch(batch(2**64 - 1, proxy_id="odd"), batch(1, proxy_id="odd"))
    await rig.send_batch(batch(1), batch(2))

    assert rig.status().reports.received == 3
    assert rig.status().reports.offered < 2**63


async def test_a_stream_that_breaks_amid_a_batch_costs_none_of_its_reports() -> None:
    totals, half_way = ReportTotals(), asyncio.Event()
    taken: list[pb.Report] = []

    def observe(each: pb.Report) -> None:
        taken.append(each)
        if len(taken) == 100:
            half_way.set()

    intake = ReportIntake(totals, observe)

    class OneBatch:
        """A stream that carries one batch, and breaks while it is taken in."""

        async def read(self) -> pb.ReportBatch:
            return batch(1, reports=1_000)

    # Straight to the method: over a socket the break would come when it likes.
    sending = asyncio.ensure_future(intake.Send(None, OneBatch()))  # type: ignore[arg-type]
    await half_way.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert len(taken) == totals.received == 1_000


async def test_open_streams_do_not_hold_up_the_end_and_are_bounded() -> None:
    intake = ReportIntake(ReportTotals(), lambda _: None, streams_max=2)
    server = grpc.aio.server()
    pb_grpc.add_ReportsServicer_to_server(intake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.ReportsStub(channel)
        calls = [stub.Send(), stub.Send()]
        for number, call in enumerate(calls):
            await call.write(batch(1, proxy_id=f"p{number}"))
            await read(call)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Send().read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert intake.turned_away == 1
        intake.end_streams()
        for call in calls:
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
        async with asyncio.timeout(2):
            await server.stop(30)
