"""What a failed verb says: one line on standard error, and an exit code."""

import grpc

from coalmine.access.target import turned_away
from coalmine.shown_value import printable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_VERDICT_FAIL = 3
EXIT_NO_VERDICT = 4
EXIT_NOT_SERVING = 5


class Failure(Exception):
    """The verb can't do what was asked; its text is the line that the operator reads."""

    exit_code = EXIT_FAILED


class WrongUsage(Failure):
    """The command line, or a file that it names, is wrong and would be wrong again."""

    exit_code = EXIT_USAGE


class VerdictFailed(Failure):
    """The router's verdict is FAIL: the answer to the question, not a failure to find it."""

    exit_code = EXIT_VERDICT_FAIL


class NoVerdict(Failure):
    """There was no verdict in time."""

    exit_code = EXIT_NO_VERDICT


class NotServing(Failure):
    """Something is wrong with the route: its health is DEGRADED or DOWN."""

    exit_code = EXIT_NOT_SERVING


class Unreachable(Failure):
    """Nobody answers at the address."""


def from_status(error: grpc.aio.AioRpcError) -> Failure:
    """Return the line for a call that was answered with an error: its details, and its code."""
    said = f"{one_line(error.details() or 'no details')} ({error.code().name})"
    return Failure(_with_advice(said, error))


def from_silence(what: str, address: str, error: grpc.aio.AioRpcError) -> Unreachable:
    """Return the line for `what`, at `address`, that could not be connected to."""
    said = f"cannot reach {what} at {address}: {one_line(error.details() or '')}"
    return Unreachable(_with_advice(said, error))


def from_another(what: str, address: str, error: grpc.aio.AioRpcError) -> Failure:
    """Return the line for an address where something else than `what` answered."""
    said = f"{one_line(error.details() or '')} ({error.code().name})"
    return Failure(f"what answers at {address} is not {what}, or an older one: {said}")


def from_no_answer(what: str, address: str, silent_s: float) -> Unreachable:
    """Return the line for `what`, at `address`, that says nothing at all."""
    return Unreachable(f"{what} at {address} does not answer: nothing came within {silent_s:.1f} s")


def _with_advice(said: str, error: grpc.aio.AioRpcError) -> str:
    advice = turned_away(error)
    return f"{said}; {advice}" if advice else said


def one_line(text: str) -> str:
    """Return `text` without line breaks, and with control characters spelt out."""
    return printable(" ".join(text.split()))
