"""Calls to the router's control API."""

import asyncio
import getpass
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import grpc
import typer

from coalmine.access.target import Target, with_metadata
from coalmine.command_line.connection_options import TargetMaker, in_place_of, with_target_options
from coalmine.command_line.failure import Failure
from coalmine.command_line.number_options import whole_option
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine.limits import MESSAGE_BYTES_MAX
from coalmine_client.cli.call_failure import from_status, no_answer, unreachable, wrong_peer
from coalmine_client.cli.connection_retry import RECONNECTING, with_retries
from coalmine_client.cli.liveness import Silent, await_unless_silent

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub

DEFAULT: Final = "127.0.0.1:9002"
TIMEOUT_S: Final = 10.0

# A kept mismatch holds a request and two answers.
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 3 * MESSAGE_BYTES_MAX + 1024 * 1024),
    *RECONNECTING,
)
_WHAT: Final = "the router's control API"
_NOT_ANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Reason = Annotated[str, typer.Option("--reason", help="Why, for the history.")]
ExpectRevision = Annotated[
    int,
    whole_option(
        "--expect-revision",
        metavar="N",
        min=0,
        max=2**64 - 1,
        help="Refuse where the route table has another revision by now; 0: whatever it is.",
    ),
]

Found = TypeVar("Found")
Question = Callable[["RouteControlAsyncStub"], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class ControlClient:
    """A router's control API, and how it is called."""

    target: Target

    def ask(self, question: Question[Found], *, is_patient: bool = False) -> Found:
        """Return the router's answer to `question`, which may take as long as the router lives.

        With `is_patient` it also waits for a router that fell silent after its first answer.
        Raises Failure with the router's error, Unreachable where nobody answers, and StartError
        for options that can't be used.
        """
        return asyncio.run(self._ask(question, is_patient=is_patient))

    async def _ask(self, question: Question[Found], *, is_patient: bool) -> Found:
        metadata = self.target.token_metadata()
        async with self.target.open_aio_channel(_OPTIONS) as channel:
            answer = question(RouteControlStub(with_retries(with_metadata(channel, metadata))))
            try:
                return await await_unless_silent(channel, answer, is_patient=is_patient)
            except Silent as silent:
                raise no_answer(_WHAT, self.target.address, silent.silent_s) from None
            except grpc.aio.AioRpcError as error:
                raise _failure_of(error, channel, self.target.address) from None


@with_target_options
def _control_client(
    *,
    control: Annotated[
        str,
        typer.Option(
            "--control",
            envvar="COALMINE_CONTROL",
            metavar="HOST:PORT",
            help="Where the router's control API listens.",
        ),
    ] = DEFAULT,
    target_at: TargetMaker,
) -> ControlClient:
    return ControlClient(target_at(control))


# A verb's parameter `control`, as options.
calling: Final = in_place_of("control", _control_client)


def _failure_of(error: grpc.aio.AioRpcError, channel: grpc.aio.Channel, address: str) -> Failure:
    # A router that answers UNAVAILABLE is connected; the text of the status tells nothing reliable.
    connected = channel.get_state() is grpc.ChannelConnectivity.READY
    if error.code() in _NOT_ANSWERED and not connected:
        return unreachable(_WHAT, address, error)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return wrong_peer(_WHAT, address, error)
    return from_status(error)


def actor() -> str:
    """Return who asks, for the history: USER@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user often has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
