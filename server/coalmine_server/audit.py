"""The record of who changed what is served: a line in the log for each call that did, or was to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import structlog

from coalmine.clock import Clock
from coalmine.errors import CoalmineError, Unauthenticated
from coalmine.inference import SERVICE
from coalmine.status import Context
from coalmine.tokens import Principal

_log = structlog.get_logger(__name__)

ANONYMOUS: Final = "anonymous"
METHODS: Final = ("RepositoryModelLoad", "RepositoryModelUnload")
ADMIN: Final = frozenset(f"/{SERVICE}/{method}" for method in METHODS)

_NAME_CHARS: Final = 256
_REASON_CHARS: Final = 1_024  # it may hold what the caller sent

Outcome = tuple[str, str]  # a status code's name, and why
_OK: Final[Outcome] = ("OK", "")

Behaviour = Callable[[Any, Context], Awaitable[Any]]
# From a call's metadata to who shows a token in it. Raises Unauthenticated.
Identify = Callable[[Any], Principal]


class Recorded:
    """A servicer whose changing methods are recorded; the others are the servicer's own."""

    def __init__(self, servicer: Any, audit: "Audit") -> None:
        self._servicer = servicer
        self._audit = audit

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._servicer, name)
        return self._audit.recording(name, found) if name in METHODS else found


class Audit:
    """Writes the lines. Without `identify`, callers are known by their certificates alone."""

    def __init__(self, identify: Identify | None, clock: Clock) -> None:
        self._identify = identify
        self._clock = clock

    def recording(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Return the method, with a line for each call once it is over."""

        async def recorded(request: Any, context: Context) -> Any:
            # Asked first: the token may be gone by the end.
            who, begun_ns = self._who(context), self._clock.monotonic_ns()
            outcome = _OK
            try:
                return await behaviour(request, context)
            except BaseException as error:
                outcome = _outcome(error, context)
                raise
            finally:
                ms = round((self._clock.monotonic_ns() - begun_ns) / 1e6, 1)
                self._write(
                    outcome, who, context, method=method, model=_model(request), duration_ms=ms
                )

        return recorded

    def refused(self, method: str, context: Context, error: CoalmineError) -> None:
        """Write a line for a call that was turned away with its request unread."""
        name = method.rpartition("/")[2]
        self._write((error.code, str(error)), self._who(context), context, method=name)

    def _write(self, outcome: Outcome, who: str, context: Context, **said: Any) -> None:
        code, reason = outcome
        if reason:
            said["reason"] = reason[:_REASON_CHARS]
        write = _log.info if code == "OK" else _log.warning
        write("audit", who=who, peer=context.peer(), code=code, **said)

    def _who(self, context: Context) -> str:
        if self._identify is not None:
            try:
                return self._identify(context.invocation_metadata() or ()).name
            except Unauthenticated:
                return ANONYMOUS
        return _certified(context) or ANONYMOUS


def _certified(context: Context) -> str:
    """Return the subject of the caller's certificate, such as CN=alice; "" without one."""
    found = context.auth_context().get("x509_subject") or ()
    return b", ".join(found).decode(errors="replace")


def _outcome(error: BaseException, context: Context) -> Outcome:
    """Return what the caller is told for what its call raised."""
    if isinstance(error, grpc.aio.AbortError):
        code: Any = context.code()
        return code.name, context.details()
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", "given up by the caller, or out of time"
    return "UNKNOWN", type(error).__name__


def _model(request: Any) -> str | None:
    """Return the model's name, or as much of it as a line may have; None: unreadable."""
    name = getattr(request, "model_name", None)
    return None if name is None else str(name)[:_NAME_CHARS]
