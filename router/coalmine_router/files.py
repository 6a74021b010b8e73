"""The files that router.yaml names, read as the processes will read them: before they start."""

from datetime import datetime

from coalmine.access.certificate_dates import (
    CertificateFile,
    caller_files,
    listener_files,
    times_of,
)
from coalmine.access.credentials import server_credentials
from coalmine.access.tokens import read_tokens
from coalmine_router.channels import BackendFiles, tls_of
from coalmine_router.config.file import RouterConfig, TlsConfig


def certificate_files(config: RouterConfig) -> list[CertificateFile]:
    """Return the certificate files that a configuration names, those of the backends too."""
    files = [each for listener in (config, config.control) for each in _shown_files(listener.tls)]
    for backend in config.reached_backends():
        files += caller_files(tls_of(backend))
    return files


def _shown_files(tls: TlsConfig | None) -> list[CertificateFile]:
    return listener_files(None if tls is None else tls.files())


def certificate_problems(config: RouterConfig, now: datetime) -> list[str]:
    """Return a line for each file whose certificate nobody takes now."""
    times = times_of(certificate_files(config))
    return [f"{each.path}: {problem}" for each in times if (problem := each.problem(now))]


def certificate_warnings(config: RouterConfig, now: datetime) -> list[str]:
    """Return a line for each file whose certificate is good now, and ends soon."""
    return [
        f"{each.path}: ends in less than {_days_text(days + 1)}, on {each.ends:%Y-%m-%d}"
        for each in times_of(certificate_files(config))
        if not each.problem(now) and (days := each.days_left(now)) is not None
    ]


def _days_text(count: int) -> str:
    return "a day" if count == 1 else f"{count} days"


def check_files(config: RouterConfig) -> None:
    """Read certificates, keys and tokens. Raises StartError for the first that is wrong."""
    for listener in (config, config.control):
        if listener.tls is not None:
            server_credentials(listener.tls.files())
        if listener.tokens is not None:
            read_tokens(listener.tokens)
    for backend in config.reached_backends():
        BackendFiles(backend)
