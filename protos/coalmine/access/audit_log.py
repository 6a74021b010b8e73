"""The audit log: a line for each call, or attempted call, of an operator's method."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import grpc
import structlog

from coalmine.access.tokens import Principal
from coalmine.clock import Clock
from coalmine.errors import CoalmineError, Unauthenticated
from coalmine.status import Context

_log = structlog.get_logger(__name__)

ANONYMOUS: Final = "anonymous"

_WORD_CHARS: Final = 256
_REASON_CHARS: Final = 1_024  # it may hold what the caller sent

Outcome = tuple[str, str]  # a status code's name, and why
_OK: Final[Outcome] = ("OK", "")

Behaviour = Callable[[Any, Context], Awaitable[Any]]
# From a call's metadata to who shows a token in it. Raises Unauthenticated.
Identify = Callable[[Any], Principal]


class AuditedServicer:
    """A servicer whose audited methods write lines. Its other methods are unchanged."""

    def __init__(self, servicer: Any, audit: "Audit") -> None:
        self._servicer = servicer
        self._audit = audit

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._servicer, name)
        return self._audit.with_audit(name, found) if name in self._audit.methods else found


class Audit:
    """Writes the lines of a service's `methods`, with these `fields` of their requests.

    Without `identify`, only a certificate says who the caller is.
    """

    def __init__(
        self,
        service: str,
        methods: Sequence[str],
        *,
        fields: Mapping[str, str],
        identify: Identify | None,
        clock: Clock,
    ) -> None:
        self.methods = frozenset(methods)
        self._full = frozenset(f"/{service}/{method}" for method in methods)
        self._fields = fields
        self._identify = identify
        self._clock = clock

    def with_audit(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Return the method, which then writes a line at the end of each call."""

        async def call_and_write(request: Any, context: Context) -> Any:
            # Asked first: the token may be gone by the end.
            who, begun_ns = self._caller_name(context), self._clock.monotonic_ns()
            outcome = _OK
            try:
                return await behaviour(request, context)
            except BaseException as error:
                outcome = _outcome_of_error(error, context)
                raise
            finally:
                ms = round((self._clock.monotonic_ns() - begun_ns) / 1e6, 1)
                said = self._request_fields(request)
                self._write(outcome, who, context, method=method, **said, duration_ms=ms)

        return call_and_write

    def write_refusal(self, method: str, context: Context, error: CoalmineError) -> None:
        """Write a line for a call that was refused before its request was read.

        `method` is the full name. Nothing is written for a method that isn't audited.
        """
        if method in self._full:
            name = method.rpartition("/")[2]
            self._write((error.code, str(error)), self._caller_name(context), context, method=name)

    def caller_of(self, context: Context) -> str:
        """Return the caller's proven name, from its token or else its certificate; "": none."""
        if self._identify is None:
            return _certificate_subject(context)
        try:
            return self._identify(context.invocation_metadata() or ()).name
        except Unauthenticated:
            return ""

    def _write(self, outcome: Outcome, who: str, context: Context, **said: Any) -> None:
        code, reason = outcome
        if reason:
            said["reason"] = reason[:_REASON_CHARS]
        write = _log.info if code == "OK" else _log.warning
        write("audit", who=who, peer=context.peer(), code=code, **said)

    def _caller_name(self, context: Context) -> str:
        return self.caller_of(context) or ANONYMOUS

    def _request_fields(self, request: Any) -> dict[str, str | None]:
        """Return the request's fields, each as long as a line allows; None if it is unreadable."""
        return {said: _field_text(request, field) for said, field in self._fields.items()}


def _certificate_subject(context: Context) -> str:
    """Return the subject of the caller's certificate, such as CN=alice; "" without one."""
    found = context.auth_context().get("x509_subject") or ()
    return b", ".join(found).decode(errors="replace")


def _outcome_of_error(error: BaseException, context: Context) -> Outcome:
    """Return the status that the caller gets for an exception of its call."""
    if isinstance(error, grpc.aio.AbortError):
        code: Any = context.code()
        return code.name, context.details()
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", "given up by the caller, or out of time"
    return "UNKNOWN", type(error).__name__


def _field_text(request: Any, field: str) -> str | None:
    found = getattr(request, field, None)
    return None if found is None else str(found)[:_WORD_CHARS]
