"""What several workers say, as one answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.inference import inference_pb2 as pb
from coalmine_server.fleet.merge import merged_index, merged_statistics

Row = pb.RepositoryIndexResponse.ModelIndex


def row(state: str, reason: str = "", version: str = "1") -> Row:
    return Row(name="m", version=version, state=state, reason=reason)


@pytest.mark.parametrize(
    ("rows", "state", "reason"),
    [
        ({0: [row("READY")], 1: [row("READY")]}, "READY", ""),
        ({0: [row("UNAVAILABLE", "unloaded")], 1: [row("UNAVAILABLE", "unloaded")]},
         "UNAVAILABLE", "unloaded"),
        ({0: [row("READY")], 1: [row("LOADING")]}, "LOADING", "worker 1: LOADING"),
        ({0: [row("READY")], 1: [row("UNAVAILABLE", "bad file")]},
         "UNAVAILABLE", "worker 1: bad file"),
        ({0: [row("READY")], 1: []}, "UNAVAILABLE", "worker 1: is not known there"),
        ({0: [], 1: [row("READY")]}, "UNAVAILABLE", "worker 0: is not known there"),
        ({0: [row("LOADING")], 1: [row("UNAVAILABLE", "x")]}, "UNAVAILABLE", "worker 1: x"),
        # It serves everywhere, but a later change of it failed in one.
        ({0: [row("READY")], 1: [row("READY", "load failed")]}, "READY", "worker 1: load failed"),
        ({1: [row("READY")]}, "READY", ""),
    ],
)  # fmt: skip
def test_a_version_is_ready_only_where_it_is_so_in_every_worker(
    rows: dict[int, list[Row]], state: str, reason: str
) -> None:
    [merged] = merged_index(rows)
    assert (merged.state, merged.reason) == (state, reason)


def test_versions_keep_the_order_of_the_first_worker() -> None:
    first = [row("READY", version="2"), row("READY", version="1")]
    second = [row("READY", version=each) for each in "123"]
    assert [each.version for each in merged_index({0: first, 1: second})] == ["2", "1", "3"]


def statistics(successes: int, sizes: dict[int, int], last: int = 0) -> pb.ModelStatistics:
    message = pb.ModelStatistics(
        name="m",
        version="1",
        last_inference=last,
        inference_count=sum(size * count for size, count in sizes.items()),
        execution_count=sum(sizes.values()),
        memory_usage=[pb.MemoryUsage(type="CPU", id=0, byte_size=10)],
    )
    message.inference_stats.success.count = successes
    message.inference_stats.success.ns = successes * 5
    for size, count in sizes.items():
        message.batch_stats.add(
            batch_size=size, compute_infer=pb.StatisticDuration(count=count, ns=count * 7)
        )
    return message


def test_counts_and_times_are_sums_and_the_last_is_the_last() -> None:
    first, second = statistics(3, {4: 1, 1: 2}, last=9), statistics(2, {2: 1, 4: 5}, last=7)
    [total] = merged_statistics([[first], [second]])
    assert total.last_inference == 9
    assert total.inference_count == first.inference_count + second.inference_count
    assert total.execution_count == 9
    assert total.inference_stats.success == pb.StatisticDuration(count=5, ns=25)
    assert [(each.batch_size, each.compute_infer.count) for each in total.batch_stats] == [
        (1, 2),
        (2, 1),
        (4, 6),
    ]
    assert [each.byte_size for each in total.memory_usage] == [20]


def test_one_workers_statistics_are_themselves() -> None:
    alone = statistics(3, {1: 2, 4: 1}, last=9)
    assert merged_statistics([[alone]]) == [alone]


@given(st.lists(st.dictionaries(st.integers(1, 8), st.integers(1, 100)), max_size=4))
def test_what_adds_up_in_each_worker_adds_up_in_all(workers: list[dict[int, int]]) -> None:
    totals = merged_statistics([[statistics(0, sizes)] for sizes in workers])
    for total in totals:
        counts = {each.batch_size: each.compute_infer.count for each in total.batch_stats}
        assert sum(counts.values()) == total.execution_count
        assert sum(size * count for size, count in counts.items()) == total.inference_count
        assert list(counts) == sorted(counts)
    assert len(totals) == bool(workers)
