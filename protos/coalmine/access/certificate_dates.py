"""When certificates begin and end: a warning in time, and a metric."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from prometheus_client import Metric
from prometheus_client.registry import Collector

from coalmine.access.tls_files import Tls, TlsFiles
from coalmine.clock import Clock
from coalmine.process.blocking_thread import run_in_thread
from coalmine.process.metric_families import MetricFamilies
from coalmine.process.watched_files import Stamp, stamp_of

_log = structlog.get_logger(__name__)

_SOON: Final = timedelta(days=14)
_LOOK_S: Final = 10.0
_TELL_AGAIN_NS: Final = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A PEM file: the certificates that a process shows, or the authorities that it trusts."""

    path: Path
    is_trusted: bool = False


@dataclass(frozen=True, slots=True)
class CertificateTimes:
    """The time in which a file is valid, and the certificate that bounds it."""

    path: Path
    subject: str
    begins: datetime
    ends: datetime

    def problem(self, now: datetime) -> str:
        """Return why peers refuse it now, in a few words; "" if they don't."""
        if now > self.ends:
            return f"expired on {self.ends:%Y-%m-%d}"
        return f"not valid before {self.begins:%Y-%m-%d}" if now < self.begins else ""

    def days_left(self, now: datetime) -> int | None:
        """Return in how many days it ends, if that is soon; else None."""
        return (self.ends - now).days if now <= self.ends < now + _SOON else None


def listener_files(files: TlsFiles | None) -> list[CertificateFile]:
    """Return the certificate files of a listener."""
    if files is None:
        return []
    trusted = [] if files.client_ca is None else [CertificateFile(files.client_ca, is_trusted=True)]
    return [CertificateFile(files.cert), *trusted]


def caller_files(tls: Tls | None) -> list[CertificateFile]:
    """Return the certificate files of a caller."""
    if tls is None:
        return []
    trusted = [] if tls.ca is None else [CertificateFile(tls.ca, is_trusted=True)]
    return trusted + ([] if tls.cert is None else [CertificateFile(tls.cert)])


def times_of(files: Iterable[CertificateFile]) -> Iterator[CertificateTimes]:
    """Yield the times of each file, once. A file that can't be read is left to its other readers.

    A file that is shown is valid while all of its certificates are. Of trusted authorities the one
    that lasts longest counts, because bundles also have old ones.
    """
    for file in dict.fromkeys(files):
        try:
            found = x509.load_pem_x509_certificates(file.path.read_bytes())
        except (OSError, ValueError):
            continue
        choose = max if file.is_trusted else min
        chosen = choose(found, key=lambda each: each.not_valid_after_utc)
        yield CertificateTimes(
            file.path,
            chosen.subject.rfc4514_string(),
            chosen.not_valid_before_utc,
            chosen.not_valid_after_utc,
        )


class CertificateDates(Collector):
    """Logs the dates of a process's certificates: at once, when a file changes, and each day.

    The metric begins with the name of its `program`.
    """

    def __init__(self, files: Sequence[CertificateFile], program: str, clock: Clock) -> None:
        self._files = tuple(files)
        self._families = MetricFamilies(program)
        self._clock = clock
        self._stamp: Stamp | None = None
        self._told_ns = 0

    async def keep_logging(self) -> None:
        """Log their dates until cancelled."""
        while self._files:
            await run_in_thread(self.log_problems)
            await asyncio.sleep(_LOOK_S)

    def log_problems(self) -> None:
        """Log present and coming problems, unless they are logged and nothing has changed."""
        stamp, now_ns = stamp_of([each.path for each in self._files]), self._clock.monotonic_ns()
        if stamp == self._stamp and now_ns < self._told_ns + _TELL_AGAIN_NS:
            return
        self._stamp, self._told_ns = stamp, now_ns
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        for each in times_of(self._files):
            _log_problem(each, now)

    def collect(self) -> Iterator[Metric]:
        """Return when each file ends, as the files are now."""
        family = self._families.gauge(
            "certificate_not_after_seconds",
            "When a certificate file ends, in seconds since 1970.",
            "file",
        )
        for each in times_of(self._files):
            family.add_metric([str(each.path)], each.ends.timestamp())
        yield family


def _log_problem(times: CertificateTimes, now: datetime) -> None:
    facts = {"file": str(times.path), "subject": times.subject}
    if problem := times.problem(now):
        _log.error("certificate_refused", problem=problem, **facts)
    elif (days := times.days_left(now)) is not None:
        _log.warning("certificate_expires_soon", days=days, ends=f"{times.ends:%F %R}Z", **facts)
