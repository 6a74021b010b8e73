"""The reports that the control process hasn't acknowledged, bounded and in batches. Pure.

A report waits until it leaves in a batch. The outbox keeps a batch until the control process
acknowledges its number. Until then the proxy can't know whether it arrived.
"""

from collections import Counter, deque
from typing import Final, NamedTuple

from coalmine.control.v1 import control_pb2 as pb
from coalmine.varint import varint

BYTES_MAX: Final = 64 * 1024 * 1024
BATCH_BYTES: Final = 256 * 1024
# The bound on unacknowledged batches. A slow control process slows the sending, not the proxy.
WINDOW_BYTES: Final = 4 * 1024 * 1024
AGE_S_MAX: Final = 60.0
REFUSALS_MAX: Final = 3

# The memory of a report beside its bytes: two objects' heads, and two places.
_EACH_BYTES: Final = 96
_REPORTS_TAG: Final = bytes([pb.ReportBatch.REPORTS_FIELD_NUMBER << 3 | 2])
_WITHOUT_BODIES: Final = pb.Report(uncopied="pressure").SerializeToString()


class OutboxBatch(NamedTuple):
    """A serialised ReportBatch with so many reports."""

    number: int
    reports: int
    data: bytes


class Outbox:
    """The waiting reports, oldest first, and the unacknowledged batches. For one loop.

    Over half full, it leaves bodies out of new reports. When full, it drops new reports.
    """

    def __init__(self, proxy_id: str, *, bytes_max: int = BYTES_MAX) -> None:
        self._proxy_id = proxy_id
        self._bytes_max = bytes_max
        self._bytes_relaxed = bytes_max // 2
        self._kept_bytes = 0
        # Side by side, so that a body is not copied before its batch is made. Bytes alone: garbage
        # collection has nothing to look into.
        self.waiting: deque[bytes] = deque()
        self._bodies: deque[bytes] = deque()
        self._unacknowledged: deque[OutboxBatch] = deque()
        self._window_bytes = 0
        # By second: the number of reports that had come in by then.
        self._marks: deque[tuple[float, int]] = deque()
        self._left = 0
        self._offered = 0
        self._sent = 0
        self._number = 0
        self._refused = 0
        self._refusals = 0
        self.dropped: Counter[str] = Counter()

    def offer(self, report: bytes, bodies: bytes = b"") -> None:
        """Keep a serialised Report; `bodies` are more fields of the same message."""
        self._offered += 1
        size = len(report) + len(bodies) + _EACH_BYTES
        kept = self._kept_bytes + size
        if kept > self._bytes_relaxed:
            if bodies:
                bodies = _WITHOUT_BODIES
                kept = self._kept_bytes + len(report) + len(bodies) + _EACH_BYTES
            if kept > self._bytes_max:
                self.dropped["buffer_full"] += 1
                return
        self._kept_bytes = kept
        self.waiting.append(report)
        self._bodies.append(bodies)

    def drop_old_reports(self, now_s: float) -> None:
        """Note the time, and drop reports older than a minute. Call it each second or so.

        Sent batches stay: the control process may have counted them, so they aren't dropped.
        """
        self._marks.append((now_s, self._left + len(self.waiting)))
        while self._marks and self._marks[0][0] <= now_s - AGE_S_MAX:
            _, come_in = self._marks.popleft()
            while self._left < come_in:
                self._kept_bytes -= len(self._pop_report()) + _EACH_BYTES
                self.dropped["expired"] += 1

    # ------------------------------------------------------------ batches

    @property
    def is_window_full(self) -> bool:
        """Whether the next batch should wait for acknowledgements."""
        return self._window_bytes >= WINDOW_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether no report waits, and each batch is acknowledged."""
        return not self.waiting and not self._unacknowledged

    def unacknowledged_batches(self) -> tuple[OutboxBatch, ...]:
        """Return the batches to send again over a new stream, in their order."""
        return tuple(self._unacknowledged)

    def take_batch(self) -> OutboxBatch:
        """Take the oldest waiting reports as the next batch, and keep it until acknowledged."""
        self._number += 1
        parts = [self._batch_head()]
        taken, before = 0, self._sent
        while self.waiting and taken < BATCH_BYTES:
            report = self._pop_report()
            taken += len(report) + _EACH_BYTES
            self._sent += 1
            parts += (_REPORTS_TAG, varint(len(report)), report)
        batch = OutboxBatch(self._number, self._sent - before, b"".join(parts))
        self._unacknowledged.append(batch)
        self._window_bytes += len(batch.data)
        self._kept_bytes += len(batch.data) - taken
        return batch

    def acknowledge(self, number: int) -> None:
        """Forget the batches up to `number`: the control process has counted them."""
        while self._unacknowledged and self._unacknowledged[0].number <= number:
            self._forget_oldest()

    def refuse(self) -> None:
        """Note that the control process refused the oldest batch. Drop it the third time.

        Otherwise no later batch would ever arrive.
        """
        if not self._unacknowledged:
            return
        oldest = self._unacknowledged[0]
        self._refusals = self._refusals + 1 if oldest.number == self._refused else 1
        self._refused = oldest.number
        if self._refusals >= REFUSALS_MAX:
            self.dropped["refused"] += oldest.reports
            self._sent -= oldest.reports
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        size = len(self._unacknowledged.popleft().data)
        self._window_bytes -= size
        self._kept_bytes -= size

    def _pop_report(self) -> bytes:
        self._left += 1
        bodies = self._bodies.popleft()
        report = self.waiting.popleft()
        return report + bodies if bodies else report

    def _batch_head(self) -> bytes:
        return pb.ReportBatch(
            proxy_id=self._proxy_id,
            offered_total=self._offered,
            dropped_total=self.dropped,
            sent_total=self._sent,
            number=self._number,
        ).SerializeToString()
