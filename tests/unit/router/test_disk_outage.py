"""A file in trouble: what the log says of it, and what operators are told."""

import sqlite3
from pathlib import Path

from structlog.testing import capture_logs

from coalmine_router.state.disk_outage import DiskOutage

FULL = sqlite3.OperationalError("database or disk\nis full")


def an_outage() -> DiskOutage:
    return DiskOutage(Path("state/x.db"), "takes nothing", began="not_written", ended="written")


def test_each_outage_is_one_line_however_often_it_fails_and_one_when_it_is_over() -> None:
    outage = an_outage()
    with capture_logs() as logs:
        outage.note_success()
        for _ in range(2):
            outage.note_failure(FULL)
            outage.note_failure(OSError("read-only"))
            outage.note_success()
            outage.note_success()
    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("not_written", "error"),
        ("written", "info"),
    ] * 2


def test_what_operators_are_told_is_one_line_with_the_latest_reason() -> None:
    outage = an_outage()
    assert outage.trouble == ""
    outage.note_failure(FULL)
    assert outage.trouble == "state/x.db: takes nothing: database or disk is full"
    outage.note_failure(OSError("read-only"))
    assert outage.trouble == "state/x.db: takes nothing: read-only"
    outage.note_failure(OSError(28, "No space left on device", "x.db"))
    assert outage.trouble == "state/x.db: takes nothing: no space left on device"
    outage.note_failure(FULL, meanwhile="goes on without")
    assert outage.trouble.endswith("is full; goes on without")
    outage.note_success()
    assert outage.trouble == ""
