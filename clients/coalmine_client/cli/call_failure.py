"""What a verb says of a call that failed."""

import grpc

from coalmine.access.target import advice_on
from coalmine.command_line.failure import Failure
from coalmine.shown_value import one_line


class Unreachable(Failure):
    """Nobody answers at the address."""


def from_status(error: grpc.aio.AioRpcError) -> Failure:
    """Return the line for a call that the peer answered with an error: details and code."""
    said = f"{one_line(error.details() or 'no details')} ({error.code().name})"
    return Failure(_with_advice(said, error))


def unreachable(what: str, address: str, error: grpc.aio.AioRpcError) -> Unreachable:
    """Return the line for no connection to `what` at `address`."""
    said = f"cannot reach {what} at {address}: {one_line(error.details() or '')}"
    return Unreachable(_with_advice(said, error))


def wrong_peer(what: str, address: str, error: grpc.aio.AioRpcError) -> Failure:
    """Return the line for an address where something other than `what` answered."""
    said = f"{one_line(error.details() or '')} ({error.code().name})"
    return Failure(f"what answers at {address} is not {what}, or an older one: {said}")


def no_answer(what: str, address: str, silent_s: float) -> Unreachable:
    """Return the line for `what` at `address`, which takes calls and answers none."""
    return Unreachable(f"{what} at {address} does not answer: nothing came within {silent_s:.1f} s")


def _with_advice(said: str, error: grpc.aio.AioRpcError) -> str:
    advice = advice_on(error)
    return f"{said}; {advice}" if advice else said
