"""What waits to be reported: bounded in bytes and age, numbered, kept until acknowledged."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.proxy.outbox import (
    AGE_S_MAX,
    BATCH_BYTES,
    REFUSALS_MAX,
    WINDOW_BYTES,
    Outbox,
)


def report(number: int, **fields: Any) -> bytes:
    return pb.Report(started_ns=number, shadows=["canary"], **fields).SerializeToString()


def bodies(size: int) -> bytes:
    return pb.Report(request_body=bytes(size)).SerializeToString()


def taken(outbox: Outbox) -> pb.ReportBatch:
    return pb.ReportBatch.FromString(outbox.take_batch().data)


def numbers(batch: pb.ReportBatch) -> list[int]:
    return [each.started_ns for each in batch.reports]


def test_a_batch_is_a_message_with_the_reports_in_order_and_their_bodies_in_place() -> None:
    outbox = Outbox("p1")
    outbox.offer(report(1), bodies(300))
    outbox.offer(report(2))
    batch = taken(outbox)

    assert (batch.proxy_id, batch.number, batch.offered_total, batch.sent_total) == ("p1", 1, 2, 0)
    assert numbers(batch) == [1, 2]
    assert batch.reports[0].request_body == bytes(300)
    assert list(batch.reports[0].shadows) == ["canary"]
    assert not batch.dropped_total


def test_batches_are_cut_at_their_size_and_tell_what_went_before_them() -> None:
    outbox = Outbox("p1")
    for number in range(6):
        outbox.offer(report(number), bodies(100_000))
    first, second = taken(outbox), taken(outbox)

    assert (numbers(first), numbers(second)) == ([0, 1, 2], [3, 4, 5])
    assert (first.number, second.number) == (1, 2)
    assert (first.sent_total, second.sent_total) == (0, 3)
    assert len(first.SerializeToString()) > BATCH_BYTES


def test_what_is_acknowledged_is_forgotten_and_the_rest_is_sent_again_as_it_was() -> None:
    outbox = Outbox("p1")
    batches = []
    for number in range(3):
        outbox.offer(report(number))
        batches.append(outbox.take_batch())
    outbox.acknowledge(2)

    assert outbox.unacknowledged_batches() == (batches[2],)
    outbox.acknowledge(1)
    assert outbox.unacknowledged_batches() == (batches[2],)
    outbox.acknowledge(2**64 - 1)
    assert outbox.is_empty
    outbox.offer(report(3))
    assert taken(outbox).number == 4


def test_over_half_full_bodies_are_left_out_and_the_report_says_so() -> None:
    outbox = Outbox("p1", bytes_max=10_000)
    for number in range(3):
        outbox.offer(report(number), bodies(3_000))
    batch = taken(outbox)

    assert numbers(batch) == [0, 1, 2]
    assert [len(each.request_body) for each in batch.reports] == [3_000, 0, 0]
    assert [each.uncopied for each in batch.reports] == ["", "pressure", "pressure"]
    assert not outbox.dropped


def test_full_the_new_report_is_dropped_and_counted() -> None:
    outbox = Outbox("p1", bytes_max=1_000)
    for number in range(100):
        outbox.offer(report(number))
    batch = taken(outbox)

    kept = len(batch.reports)
    assert 3 < kept < 100
    assert numbers(batch) == list(range(kept))
    assert outbox.dropped == {"buffer_full": 100 - kept}


def test_what_is_not_acknowledged_takes_room_as_what_waits_does() -> None:
    outbox = Outbox("p1", bytes_max=4_000)
    outbox.offer(report(0), bodies(1_800))
    outbox.take_batch()
    for number in range(1, 100):
        outbox.offer(report(number))
    dropped = outbox.dropped["buffer_full"]
    outbox.acknowledge(1)
    outbox.offer(report(100))

    assert 0 < dropped < 99
    assert outbox.dropped["buffer_full"] == dropped
    assert numbers(taken(outbox))[-1] == 100


def test_what_waits_for_more_than_a_minute_is_dropped_but_nothing_that_was_sent() -> None:
    outbox = Outbox("p1")
    outbox.offer(report(0))
    outbox.take_batch()
    outbox.offer(report(1))
    outbox.drop_old_reports(100.0)
    outbox.offer(report(2))
    outbox.drop_old_reports(100.0 + AGE_S_MAX - 0.1)
    assert not outbox.dropped
    outbox.drop_old_reports(100.0 + AGE_S_MAX)

    assert outbox.dropped == {"expired": 1}
    assert len(outbox.unacknowledged_batches()) == 1
    assert numbers(taken(outbox)) == [2]


def test_a_window_of_four_mebibytes_may_be_under_way() -> None:
    outbox = Outbox("p1")
    for number in range(100):
        outbox.offer(report(number), bodies(200_000))
    while not outbox.is_window_full:
        outbox.take_batch()
    under_way = sum(len(each.data) for each in outbox.unacknowledged_batches())

    assert WINDOW_BYTES <= under_way < WINDOW_BYTES + 2 * BATCH_BYTES
    outbox.acknowledge(1)
    assert not outbox.is_window_full


def test_a_batch_that_is_refused_time_and_again_is_given_up_and_counted() -> None:
    outbox = Outbox("p1")
    outbox.refuse()
    for number in range(3):
        outbox.offer(report(number))
    outbox.take_batch()
    outbox.offer(report(3))
    outbox.take_batch()
    for _ in range(REFUSALS_MAX - 1):
        outbox.refuse()
    assert not outbox.dropped
    outbox.refuse()

    assert outbox.dropped == {"refused": 3}
    assert [each.number for each in outbox.unacknowledged_batches()] == [2]
    outbox.refuse()
    assert len(outbox.unacknowledged_batches()) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 3_000)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("ack"), st.integers(0, 10)),
        st.tuples(st.just("tick"), st.integers(1, 40)),
        st.tuples(st.just("refuse"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_report_is_taken_in_or_dropped_or_waits_and_the_bytes_add_up(
    steps: list[tuple[str, int]],
) -> None:
    outbox, now_s, offered, acknowledged = Outbox("p1", bytes_max=9_000), 0.0, 0, 0
    for step, size in steps:
        before = {each.number: each.reports for each in outbox.unacknowledged_batches()}
        if step == "offer":
            outbox.offer(report(offered), bodies(size))
            offered += 1
        elif step == "take" and outbox.waiting:
            outbox.take_batch()
        elif step == "ack":
            outbox.acknowledge(size)
            acknowledged += sum(reports for number, reports in before.items() if number <= size)
        elif step == "tick":
            now_s += size
            outbox.drop_old_reports(now_s)
        elif step == "refuse":
            outbox.refuse()
        under_way = sum(each.reports for each in outbox.unacknowledged_batches())
        dropped = outbox.dropped.total()
        assert offered == acknowledged + dropped + under_way + len(outbox.waiting)
        assert 0 <= outbox._kept_bytes <= 9_000 + 500  # a batch's head is not asked for beforehand
    while outbox.waiting:
        outbox.take_batch()
    outbox.acknowledge(2**63)
    assert (outbox._kept_bytes, outbox._window_bytes) == (0, 0)
