"""The outcomes of calls that no backend has answered, and the status that the caller gets."""

from typing import Final, NoReturn

import grpc

from coalmine.errors import CoalmineError
from coalmine.status import end_call as end_with
from coalmine.status import status_of
from coalmine.telemetry import ORIGIN_KEY, ORIGIN_ROUTER
from coalmine_router.metadata import Pair
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.forward import Outcome

Context = grpc.aio.ServicerContext[bytes, bytes]

ENDING: Final = "this router is ending, another answers"
FROM_ROUTER: Final[Pair] = (ORIGIN_KEY, ORIGIN_ROUTER)

# gRPC rounds deadlines up on the way. So a caller hangs up a little before its time is over here.
_EARLY_S: Final = 0.005
_EARLY_SHARE: Final = 0.02


def refusal(error: CoalmineError) -> Outcome:
    """Return the outcome of a call that the router itself refuses."""
    return Outcome(status_of(error), str(error), b"", (), (), here=True)


def internal_error() -> Outcome:
    """Return the outcome of a call that failed by an error of ours."""
    return Outcome(grpc.StatusCode.INTERNAL, "internal error", b"", (), (), here=True)


def caller_gone(exchange: Exchange, context: Context) -> Outcome:
    """Return the outcome of a call whose caller stopped waiting."""
    remaining = context.time_remaining()
    spent = remaining is not None and remaining <= _EARLY_S + _EARLY_SHARE * exchange.timeout_s
    code = grpc.StatusCode.DEADLINE_EXCEEDED if spent else grpc.StatusCode.CANCELLED
    return Outcome(code, "the caller stopped waiting", b"", (), ())


async def end(context: Context, outcome: Outcome, stamp: tuple[Pair, ...]) -> NoReturn:
    """End a call with the status of `outcome`. Name the router where it made the error."""
    origin = (FROM_ROUTER,) if outcome.here else ()
    trailing = (*outcome.trailing, *stamp, *origin)
    await end_with(context, outcome.code, outcome.message, trailing)
