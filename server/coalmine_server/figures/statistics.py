"""The counters of one version, for ModelStatistics and /metrics alike. Pure.

Only the loop writes, without locks. Another thread may read: counters are single integers, and the
tables are copied before they are walked.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

OK: Final = "OK"

# Upper bounds of the buckets of the queue and compute histograms: 100 microseconds to 10 seconds.
BOUNDS_NS: Final = (
    *(100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000),
    *(50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000),
    *(5_000_000_000, 10_000_000_000),
)


@dataclass(slots=True)
class ComputeTimes:
    """Batches that ran, and the time that the three parts of it took."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add(self, count: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count `count` more, each with these times."""
        self.count += count
        self.input_ns += count * input_ns
        self.infer_ns += count * infer_ns
        self.output_ns += count * output_ns


class VersionStatistics:
    """One version's counters; they only ever grow, over all the times that it was loaded.

    - `by_code` counts every answer once, the refused too: those of "OK" are Triton's success, all
      others its fail.
    - An execution is a batch that was handed to a worker and gave at least one request its outputs.
      Its size is the rows of the requests that succeeded; that of a batch in which one failed and
      the others were run again alone is theirs. One that failed wholly counts nowhere but in
      `by_code`, as in Triton. So in `by_size`, counts sum to `execution_count`, and sizes times
      counts to `inference_count`.
    - Each request is charged its whole batch's compute times, as in Triton: `requests`.
    - `by_size` has at most as many entries as a batch may have rows: `max_batch_size`.
    """

    __slots__ = (
        "by_code",
        "by_size",
        "compute_buckets",
        "fail_ns",
        "inference_count",
        "last_inference_ms",
        "queue_buckets",
        "queue_ns",
        "requests",
        "success_ns",
    )

    def __init__(self) -> None:
        self.by_code: dict[str, int] = {}  # at most as many as there are status codes
        self.success_ns = 0
        self.fail_ns = 0
        self.last_inference_ms = 0
        self.inference_count = 0
        self.requests = ComputeTimes()
        self.by_size: dict[int, ComputeTimes] = {}
        self.queue_ns = 0
        self.queue_buckets = [0] * (len(BOUNDS_NS) + 1)  # of requests that succeeded
        self.compute_buckets = [0] * (len(BOUNDS_NS) + 1)  # of executions

    @property
    def success_count(self) -> int:
        """How many calls were answered with OK."""
        return self.by_code.get(OK, 0)

    @property
    def fail_count(self) -> int:
        """How many calls were answered with anything else."""
        return sum(dict(self.by_code).values()) - self.success_count

    @property
    def execution_count(self) -> int:
        """How many batches ran."""
        return sum(each.count for each in list(self.by_size.values()))

    def count_answer(self, code: str, took_ns: int) -> None:
        """Count one call by the name of its status code."""
        self.by_code[code] = self.by_code.get(code, 0) + 1
        if code == OK:
            self.success_ns += took_ns
        else:
            self.fail_ns += took_ns

    def count_batch(
        self,
        rows: int,
        waited_ns: Sequence[int],
        *,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        ended_ms: int,
    ) -> None:
        """Count one batch: the rows that succeeded, and how long each of their requests waited.

        `ended_ms` is since the epoch.
        """
        self.last_inference_ms = ended_ms
        self.inference_count += rows
        self.requests.add(len(waited_ns), input_ns, infer_ns, output_ns)
        size = self.by_size.get(rows)
        if size is None:
            size = self.by_size[rows] = ComputeTimes()
        size.add(1, input_ns, infer_ns, output_ns)
        self.compute_buckets[bisect_left(BOUNDS_NS, input_ns + infer_ns + output_ns)] += 1
        for each_ns in waited_ns:
            self.queue_ns += each_ns
            self.queue_buckets[bisect_left(BOUNDS_NS, each_ns)] += 1
