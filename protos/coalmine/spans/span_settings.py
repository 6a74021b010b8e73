"""What the OTEL_* variables say of the export of spans, checked before anything is exported.

The SDK would end with a traceback, or take a default in silence, for a value that it can't read.
Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/; times of
OTEL_EXPORTER_OTLP_TIMEOUT are seconds, as Python's exporter takes them. What is empty isn't set.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from coalmine.errors import StartError, reason_of

_PREFIXES: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")
_CREDENTIALS: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_WHOLE_MAX: Final = 2**31 - 1
_COMPRESSIONS: Final = ("gzip", "none")

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
# As OpenTelemetry's own exporters are named.
OTLP: Final = "otlp"
FILES: Final = "otlp_json_file"
_HTTP_PATH: Final = "/v1/traces"


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How many spans wait, how many go in one request, and how long the first of them waits."""

    queue_spans_max: int = 16_384
    batch_spans_max: int = 128
    delay_ms: int = 1_000


def batch_settings(environ: Mapping[str, str]) -> BatchSettings:
    """Return what the OTEL_BSP_* variables say. Raises StartError for one that can't be read."""
    default = BatchSettings()
    queue = _whole_number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", default.queue_spans_max)
    name = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    batch = _whole_number(environ, name, min(default.batch_spans_max, queue))
    if batch > queue:
        raise StartError(f"{name}: expected at most OTEL_BSP_MAX_QUEUE_SIZE, {queue}, got {batch}")
    return BatchSettings(
        queue, batch, _whole_number(environ, "OTEL_BSP_SCHEDULE_DELAY", default.delay_ms, " (ms)")
    )


class CredentialFiles(NamedTuple):
    """Files of certificates and a key; "" for none."""

    ca: str
    key: str
    certificate: str


def exporters_of(environ: Mapping[str, str]) -> list[str]:
    """Return which exporters OTEL_TRACES_EXPORTER names: OTLP, FILES, both or none.

    By default, and where there is no endpoint for OTLP, it is one of them. With OTEL_SDK_DISABLED
    it is none. Raises StartError.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    default = OTLP if endpoint_of(environ) else FILES
    names = [each.strip() for each in environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    named = {each for each in names if each} or {default}
    if odd := named - {OTLP, FILES, "none"}:
        told = f"expected {OTLP}, {FILES}, both or none, got '{min(odd)}'"
        raise StartError(f"OTEL_TRACES_EXPORTER: {told}")
    if default == FILES and OTLP in named:
        named = named - {OTLP} | {FILES}
    return sorted(named - {"none"})


def protocol_of(environ: Mapping[str, str]) -> str:
    """Return GRPC or HTTP, by which spans are sent. Raises StartError for another protocol."""
    name, value = _first_variable(environ, "PROTOCOL") or ("", GRPC)
    if value.strip() not in {GRPC, HTTP}:
        raise StartError(f"{name}: expected {GRPC} or {HTTP}, got '{value}'")
    return value.strip()


def endpoint_of(environ: Mapping[str, str]) -> str:
    """Return the collector's endpoint; "" where there is none."""
    return _variable_value(environ, "ENDPOINT")


def http_endpoint_of(environ: Mapping[str, str]) -> str:
    """Return where spans are sent by HTTP: the endpoint for traces as it is, else below the base.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp.
    """
    name, endpoint = _first_variable(environ, "ENDPOINT") or ("", "")
    if name.startswith(_PREFIXES[0]):
        return endpoint
    return endpoint.removesuffix("/") + _HTTP_PATH


def is_insecure(environ: Mapping[str, str]) -> bool:
    """Return whether gRPC goes without TLS: by the endpoint's scheme, else by what is said of it.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/#configuration-options.
    """
    scheme, rest, _ = endpoint_of(environ).partition("://")
    if rest and scheme.lower() in {"http", "https"}:
        return scheme.lower() == "http"
    return _variable_value(environ, "INSECURE").strip().lower() == "true"


def credential_files_of(environ: Mapping[str, str]) -> CredentialFiles:
    """Return the files of the way to the collector."""
    return CredentialFiles(*(_variable_value(environ, kind) for kind in _CREDENTIALS))


def leaves_tls_open(environ: Mapping[str, str]) -> bool:
    """Return whether neither the endpoint's scheme nor anything else says with TLS or without."""
    endpoint = endpoint_of(environ)
    is_said = endpoint.lower().startswith("https://") or is_insecure(environ)
    return bool(endpoint) and not is_said


def drop_empty(environ: MutableMapping[str, str]) -> None:
    """Let variables of the exporter that are empty be none, which it reads as values."""
    for name in [each for each, value in environ.items() if not value]:
        if name.startswith(_PREFIXES):
            del environ[name]


def check_otlp(environ: Mapping[str, str]) -> None:
    """Raise StartError for a variable that the exporter couldn't read, with its name."""
    _check_endpoint(environ, protocol_of(environ))
    for kind, (is_good, expected) in _EXPECTED.items():
        for name, value in _variables_of(environ, kind):
            if not is_good(value.strip().lower()):
                raise StartError(f"{name}: expected {expected}, got '{value}'")
    for name, value in _variables_of(environ, "HEADERS"):
        if not all("=" in each for each in value.split(",") if each.strip()):
            raise StartError(f"{name}: expected NAME=VALUE,NAME=VALUE")  # it may hold secrets
    for name, value in (each for kind in _CREDENTIALS for each in _variables_of(environ, kind)):
        _check_file(name, Path(value))
    _check_key_pair(environ)


def check_resource(environ: Mapping[str, str]) -> None:
    """Raise StartError where OTEL_RESOURCE_ATTRIBUTES has anything but NAME=VALUE between commas.

    The SDK skips it, and says so in lines of its own, already where it is imported.
    """
    name = "OTEL_RESOURCE_ATTRIBUTES"
    value = environ.get(name, "")
    for each in value.split(",") if value else ():
        key, equals, _ = each.partition("=")
        if not (key.strip() and equals):
            raise StartError(f"{name}: expected NAME=VALUE,NAME=VALUE, got '{value}'")


def compression_of(environ: Mapping[str, str]) -> str:
    """Return how requests are compressed, gzip or none: not at all, unless it is said."""
    return _variable_value(environ, "COMPRESSION").strip().lower() or "none"


def _first_variable(environ: Mapping[str, str], kind: str) -> tuple[str, str] | None:
    """Return the variable of a kind that counts."""
    return next(_variables_of(environ, kind), None)


def _variable_value(environ: Mapping[str, str], kind: str) -> str:
    return next((value for _, value in _variables_of(environ, kind)), "")


def _variables_of(environ: Mapping[str, str], kind: str) -> Iterator[tuple[str, str]]:
    """Yield the variables of a kind that are set, those for traces alone first."""
    for name in (f"{prefix}{kind}" for prefix in _PREFIXES):
        if environ.get(name):
            yield name, environ[name]


def _check_endpoint(environ: Mapping[str, str], protocol: str) -> None:
    for name, value in _variables_of(environ, "ENDPOINT"):
        if not _is_endpoint(value):
            raise StartError(
                f"{name}: expected an endpoint such as http://HOST:4317, got '{value}'"
            )
    name, value = _first_variable(environ, "ENDPOINT") or ("", "")
    if protocol == HTTP and not value.lower().startswith(("http://", "https://")):
        raise StartError(f"{name}: expected a URL such as http://HOST:4318, got '{value}'")


def _is_endpoint(value: str) -> bool:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - read where it is asked for
    except ValueError:
        return False
    return bool(parts.hostname) or parts.scheme not in {"http", "https"}


def _check_key_pair(environ: Mapping[str, str]) -> None:
    """Raise StartError for a client's key without its certificate, or by gRPC the reverse."""
    files = credential_files_of(environ)
    may_hold_key = protocol_of(environ) == HTTP
    if bool(files.key) != bool(files.certificate) and not (files.certificate and may_hold_key):
        names = " and ".join(f"{_PREFIXES[-1]}{each}" for each in _CREDENTIALS[1:])
        raise StartError(f"{names}: expected both, or none")


def _check_file(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise StartError(f"{name}: {path}: {reason_of(error)}") from None


def _whole_number(environ: Mapping[str, str], name: str, default: int, unit: str = "") -> int:
    value = environ.get(name, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and 0 < int(value[:20]) <= _WHOLE_MAX):
        raise StartError(f"{name}: expected a whole number above 0{unit}, got '{value}'")
    return int(value)


def _number_or_zero(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


_EXPECTED: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "TIMEOUT": (lambda value: 0.0 < _number_or_zero(value) < inf, "a number of seconds above 0"),
    "COMPRESSION": (_COMPRESSIONS.__contains__, " or ".join(_COMPRESSIONS)),
    "INSECURE": ({"true", "false"}.__contains__, "true or false"),
}
