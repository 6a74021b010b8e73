"""One call to a backend: what is passed on, what comes back. Bytes stay bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from coalmine_router.proxy.backends import BoundVariant, Target

Metadata = Sequence[tuple[str, str | bytes]]

# Hop-by-hop: each of these is made anew by the channel that the request leaves through.
_HOP_BY_HOP: Final = frozenset({"te", "content-type", "user-agent", "host"})
# gRPC takes a far later deadline, which callers may send, for one long past.
_TIMEOUT_S_MAX: Final = 366 * 24 * 3_600.0


@dataclass(slots=True)
class Outcome:
    """How a call ended; `here`: by an error of the router's own, not by the backend's answer."""

    code: grpc.StatusCode
    message: str
    response: bytes
    initial: Metadata
    trailing: Metadata
    here: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether there is an answer."""
        return self.code is grpc.StatusCode.OK


def travels_on(key: str) -> bool:
    """Return whether metadata of this key is passed on to the other side."""
    return key not in _HOP_BY_HOP and not key.startswith(("grpc-", ":"))


def passed_on(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, str | bytes]]:
    """Return the metadata that travels on to the other side."""
    return [pair for pair in metadata if travels_on(pair[0])]


async def forward(
    variant: BoundVariant, target: Target, request: bytes, metadata: Metadata, timeout_s: float
) -> Outcome:
    """Return how the backend answered. Cancelled, it cancels the call."""
    if timeout_s <= 0:
        return _made_here(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline was spent on the way")
    call = target.call(
        request + variant.override if variant.override else request,
        timeout=min(timeout_s, _TIMEOUT_S_MAX),
        metadata=metadata,
    )
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        return _failed(variant, target, error)
    except grpc.aio.InternalError:
        refused = _unsendable(metadata)
        if refused is None:
            raise
        return refused
    return Outcome(
        grpc.StatusCode.OK,
        "",
        response,
        passed_on(await call.initial_metadata()),
        passed_on(await call.trailing_metadata()),
    )


def _failed(variant: BoundVariant, target: Target, error: grpc.aio.AioRpcError) -> Outcome:
    code, detail = error.code(), error.details() or ""
    where = f"variant '{variant.variant.name}': backend '{variant.backend}'"
    if code is grpc.StatusCode.UNAVAILABLE and target.out_of_reach():
        return _made_here(code, f"{where} is out of reach: {detail}")
    if code is grpc.StatusCode.CANCELLED:
        # Had the caller cancelled, this had been cancelled too: the backend gave the call up.
        return _made_here(grpc.StatusCode.UNAVAILABLE, f"{where} ended the call: {detail}")
    trailing = _with_details(passed_on(error.trailing_metadata()), error)
    return Outcome(code, detail, b"", passed_on(error.initial_metadata()), trailing)


def _unsendable(metadata: Metadata) -> Outcome | None:
    """Return the refusal of metadata that gRPC took from the wire but won't send, or None.

    It has sent nothing then, and a server would leave the caller without any answer.
    """
    for key, value in metadata:
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            why = f"metadata '{key}' can't be passed on: its value is not printable ASCII"
            return _made_here(grpc.StatusCode.INVALID_ARGUMENT, why)
    return None


def _with_details(
    trailing: list[tuple[str, str | bytes]], error: grpc.aio.AioRpcError
) -> list[tuple[str, str | bytes]]:
    """Add grpc-status-details-bin, the one grpc-* key that callers read."""
    key = "grpc-status-details-bin"
    return trailing + [pair for pair in error.trailing_metadata() if pair[0] == key]


def _made_here(code: grpc.StatusCode, message: str) -> Outcome:
    return Outcome(code, message, b"", (), (), here=True)
