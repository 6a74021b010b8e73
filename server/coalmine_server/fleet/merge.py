"""The answers of several workers about the same models, merged into one. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from coalmine.inference import inference_pb2 as pb

Row = pb.RepositoryIndexResponse.ModelIndex

_READY: Final = "READY"
_UNAVAILABLE: Final = "UNAVAILABLE"


def merged_index(rows: Mapping[int, Sequence[Row]]) -> list[Row]:
    """Return one row for each version; it is READY only where it is that in every worker.

    `rows` are by worker. Otherwise a row shows the state of the first worker in which it isn't
    READY; the reason names that worker, unless all say the same.
    """
    by_worker = {
        worker: {(row.name, row.version): row for row in its} for worker, its in rows.items()
    }
    keys = dict.fromkeys(key for its in by_worker.values() for key in its)
    return [
        _fleet_row(key, {worker: its.get(key) for worker, its in by_worker.items()}) for key in keys
    ]


def _fleet_row(key: tuple[str, str], rows: Mapping[int, Row | None]) -> Row:
    said = [(worker, _state_of(row), row.reason if row else "") for worker, row in rows.items()]
    if len({(state, reason) for _, state, reason in said}) == 1:
        _, state, reason = said[0]
        return Row(name=key[0], version=key[1], state=state, reason=reason)
    worker, state, reason = _worst_state(said)
    text = reason or ("is not known there" if rows[worker] is None else state)
    return Row(name=key[0], version=key[1], state=state, reason=f"worker {worker}: {text}")


def _state_of(row: Row | None) -> str:
    return _UNAVAILABLE if row is None else row.state


def _worst_state(said: Iterable[tuple[int, str, str]]) -> tuple[int, str, str]:
    """Return the first that isn't READY; where all are, the first with a reason."""
    return min(said, key=lambda each: (each[1] == _READY, not each[2]))


def merged_statistics(
    statistics: Iterable[Sequence[pb.ModelStatistics]],
) -> list[pb.ModelStatistics]:
    """Return one message for each version: counts and times are sums, the last inference the last.

    So is memory: each worker has models of its own.
    """
    merged: dict[tuple[str, str], pb.ModelStatistics] = {}
    for its in statistics:
        for each in its:
            total = merged.setdefault((each.name, each.version), pb.ModelStatistics())
            _add_statistics(total, each)
    for total in merged.values():
        ordered = sorted(total.batch_stats, key=lambda size: size.batch_size)
        del total.batch_stats[:]
        total.batch_stats.extend(ordered)
    return list(merged.values())


def _add_statistics(total: pb.ModelStatistics, more: pb.ModelStatistics) -> None:
    total.name, total.version = more.name, more.version
    total.last_inference = max(total.last_inference, more.last_inference)
    total.inference_count += more.inference_count
    total.execution_count += more.execution_count
    _add_durations(total.inference_stats, more.inference_stats)
    for size in more.batch_stats:
        _add_durations(_ensure_row(total.batch_stats, batch_size=size.batch_size), size)
    for used in more.memory_usage:
        _ensure_row(total.memory_usage, type=used.type, id=used.id).byte_size += used.byte_size


def _add_durations(total: Any, more: Any) -> None:
    for field, duration in more.ListFields():
        if isinstance(duration, pb.StatisticDuration):
            sum_of: pb.StatisticDuration = getattr(total, field.name)
            sum_of.count += duration.count
            sum_of.ns += duration.ns


def _ensure_row(rows: Any, **key: object) -> Any:
    """Return the row with this key, a new one where there is none."""
    for row in rows:
        if all(getattr(row, name) == value for name, value in key.items()):
            return row
    return rows.add(**key)
