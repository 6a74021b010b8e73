from hypothesis import given
from hypothesis import strategies as st

from coalmine_server.figures.message import statistics_of
from coalmine_server.figures.statistics import BOUNDS_NS, VersionStatistics

MS = 1_000_000


def ran(counted: VersionStatistics, rows: int, *waited_ns: int, each_ns: int = MS) -> None:
    counted.count_batch(
        rows, waited_ns, input_ns=each_ns, infer_ns=2 * each_ns, output_ns=3 * each_ns, ended_ms=77
    )


def test_every_answer_is_a_success_or_a_failure() -> None:
    counted = VersionStatistics()
    for code, took_ns in [("OK", 5), ("OK", 6), ("INTERNAL", 1), ("RESOURCE_EXHAUSTED", 2)]:
        counted.count_answer(code, took_ns)
    stats = statistics_of("m", "1", counted, {}).inference_stats
    assert (stats.success.count, stats.success.ns) == (2, 11)
    assert (stats.fail.count, stats.fail.ns) == (2, 3)
    assert counted.by_code == {"OK": 2, "INTERNAL": 1, "RESOURCE_EXHAUSTED": 1}


def test_each_request_is_charged_the_whole_time_of_its_batch() -> None:
    counted = VersionStatistics()
    ran(counted, 5, 10, 20)
    ran(counted, 5, 30)
    stats = statistics_of("m", "1", counted, {}).inference_stats
    assert (stats.queue.count, stats.queue.ns) == (3, 60)
    assert (stats.compute_input.count, stats.compute_input.ns) == (3, 3 * MS)
    assert (stats.compute_infer.count, stats.compute_infer.ns) == (3, 6 * MS)
    assert (stats.compute_output.count, stats.compute_output.ns) == (3, 9 * MS)


def test_a_batch_is_counted_once_by_its_size() -> None:
    counted = VersionStatistics()
    ran(counted, 5, 10, 20)
    ran(counted, 5, 30)
    ran(counted, 1, 0)
    message = statistics_of("m", "1", counted, {})
    assert [(each.batch_size, each.compute_infer.count) for each in message.batch_stats] == [
        (1, 1),
        (5, 2),
    ]
    assert message.batch_stats[1].compute_input.ns == 2 * MS
    assert (message.inference_count, message.execution_count) == (11, 3)
    assert message.last_inference == 77


def test_a_version_that_never_ran_has_zeros_and_its_name() -> None:
    message = statistics_of("m", "3", VersionStatistics(), {})
    assert (message.name, message.version, message.execution_count) == ("m", "3", 0)
    assert list(message.batch_stats) == []


def test_memory_is_told_by_device() -> None:
    message = statistics_of("m", "1", VersionStatistics(), {"cpu": 5, "cuda:1": 7})
    assert [(each.type, each.id, each.byte_size) for each in message.memory_usage] == [
        ("CPU", 0, 5),
        ("GPU", 1, 7),
    ]


def test_a_time_on_a_bound_is_in_the_bucket_below_it() -> None:
    counted = VersionStatistics()
    ran(counted, 1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[-1] + 1)
    assert counted.queue_buckets[:2] == [1, 1]
    assert counted.queue_buckets[-1] == 1


batches = st.lists(
    st.tuples(st.lists(st.integers(0, 10**11), min_size=1, max_size=4), st.integers(0, 10**10)),
    max_size=20,
)


@given(batches)
def test_whatever_ran_the_figures_add_up(found: list[tuple[list[int], int]]) -> None:
    counted = VersionStatistics()
    for waited_ns, each_ns in found:
        ran(counted, len(waited_ns) + 1, *waited_ns, each_ns=each_ns)
    message = statistics_of("m", "1", counted, {})
    sizes = [(each.batch_size, each.compute_infer.count) for each in message.batch_stats]
    assert sum(count for _, count in sizes) == message.execution_count == len(found)
    assert sum(size * count for size, count in sizes) == message.inference_count
    assert sum(counted.compute_buckets) == message.execution_count
    assert sum(counted.queue_buckets) == message.inference_stats.queue.count
    assert message.inference_stats.queue.ns == sum(sum(waited) for waited, _ in found)
