"""When certificates end: what is said of it, when, and what the metric shows."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from coalmine.access.certificate_dates import (
    CertificateDates,
    CertificateFile,
    caller_files,
    listener_files,
    times_of,
)
from coalmine.access.tls_files import Tls, TlsFiles
from tests.doubles.certificates import EARLY, EXPIRED, Authority, Pair, Times
from tests.doubles.clock import HandClock

METRIC = "coalmine_test_certificate_not_after_seconds"
DAY_NS = 24 * 3600 * 1_000_000_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time.time_ns())


def dates(clock: HandClock, *files: CertificateFile) -> CertificateDates:
    return CertificateDates(files, "coalmine_test", clock)


def told(of: CertificateDates) -> list[tuple[str, str, object]]:
    """Return what it logs now: level, event, and what is said."""
    with capture_logs() as logs:
        of.log_problems()
    return [
        (each["log_level"], each["event"], each.get("problem", each.get("days"))) for each in logs
    ]


def test_one_that_lasts_is_not_worth_a_word(authority: Authority, clock: HandClock) -> None:
    pair = authority.pair("long", "long", times=Times(ends_h=24 * 15))
    assert told(dates(clock, CertificateFile(pair.cert))) == []


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (EXPIRED, ("error", "certificate_refused", f"expired on {EXPIRED.ends:%Y-%m-%d}")),
        (EARLY, ("error", "certificate_refused", f"not valid before {EARLY.begins:%Y-%m-%d}")),
        (Times(ends_h=24 * 13.5), ("warning", "certificate_expires_soon", 13)),
        (Times(ends_h=1), ("warning", "certificate_expires_soon", 0)),
    ],
)
def test_what_is_refused_or_soon_will_be_is_said(
    authority: Authority, clock: HandClock, times: Times, said: tuple[str, str, object]
) -> None:
    pair = authority.pair("short", "short", times=times)
    assert told(dates(clock, CertificateFile(pair.cert))) == [said]


def test_it_is_said_once_a_day_and_again_when_the_file_changes(
    authority: Authority, clock: HandClock
) -> None:
    pair = authority.pair("old", "old", times=EXPIRED)
    watched = dates(clock, CertificateFile(pair.cert))
    assert len(told(watched)) == 1
    clock.now_ns += DAY_NS - 1
    assert told(watched) == []
    clock.now_ns += 1
    assert len(told(watched)) == 1
    authority.pair("old", "old", times=EARLY)
    clock.now_ns -= DAY_NS
    assert [problem for *_, problem in told(watched)] == [
        f"not valid before {EARLY.begins:%Y-%m-%d}"
    ]
    authority.pair("old", "old", times=Times(ends_h=24 * 30))
    assert told(watched) == []


def joined(path: Path, *files: Path) -> Path:
    path.write_bytes(b"".join(each.read_bytes() for each in files))
    return path


def test_a_chain_ends_with_its_first_certificate_that_ends(
    authority: Authority, tmp_path: Path
) -> None:
    short = authority.pair("short", "short", times=Times(ends_h=2))
    chain = joined(tmp_path / "chain.pem", authority.server().cert, short.cert)
    (found,) = times_of([CertificateFile(chain)])
    assert found.subject == "CN=short"


def test_of_those_that_are_trusted_the_last_one_counts(
    authority: Authority, tmp_path: Path
) -> None:
    old = authority.pair("old", "old", times=EXPIRED)
    bundle = joined(tmp_path / "bundle.pem", old.cert, authority.ca)
    (found,) = times_of([CertificateFile(bundle, is_trusted=True)])
    assert found.subject == "CN=test authority"


def test_the_metric_follows_the_file(authority: Authority, clock: HandClock) -> None:
    pair = authority.pair("it", "it")
    registry = CollectorRegistry()
    registry.register(dates(clock, CertificateFile(pair.cert), CertificateFile(pair.cert)))

    def ends() -> float | None:
        return registry.get_sample_value(METRIC, {"file": str(pair.cert)})

    before = ends()
    authority.pair("it", "it", times=Times(ends_h=72))
    after = ends()
    assert before is not None
    assert after is not None
    assert after - before == timedelta(hours=24).total_seconds()


@pytest.mark.parametrize("content", [None, b"", b"junk"])
def test_a_file_that_cannot_be_read_is_left_to_whoever_needs_it(
    tmp_path: Path, clock: HandClock, content: bytes | None
) -> None:
    path = tmp_path / "c.pem"
    if content is not None:
        path.write_bytes(content)
    watched = dates(clock, CertificateFile(path))
    assert told(watched) == []
    assert [sample for family in watched.collect() for sample in family.samples] == []


def test_both_sides_of_a_connection_say_which_files_count(authority: Authority) -> None:
    pair = Pair(Path("c.pem"), Path("k.pem"))
    trusted = CertificateFile(authority.ca, is_trusted=True)
    shown = CertificateFile(pair.cert)
    assert listener_files(TlsFiles(pair.cert, pair.key, authority.ca)) == [shown, trusted]
    assert listener_files(TlsFiles(pair.cert, pair.key)) == [shown]
    assert listener_files(None) == caller_files(None) == caller_files(Tls()) == []
    assert caller_files(Tls(authority.ca, pair.cert, pair.key)) == [trusted, shown]
