"""A call to a server that runs, from the command line: its answer, or a line that says why not."""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from coalmine.access.target import open_aio_channel, shown
from coalmine.access.tls_files import Tls
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine.limits import MESSAGE_LIMITS


class AskFailed(Exception):
    """The server refused, or none answered; the text is one line."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how it is called."""

    address: str
    tls: Tls | None
    token: str | None
    token_in_plaintext: bool

    def ask(self, method: str, request: Message, timeout_s: float) -> Any:
        """Return the answer. Raises AskFailed, or StartError for options that can't be used."""
        return asyncio.run(self._asked(method, request, timeout_s))

    async def _asked(self, method: str, request: Message, timeout_s: float) -> Any:
        metadata = shown(self.token, self.address, self.tls, in_plaintext=self.token_in_plaintext)
        async with open_aio_channel(self.address, self.tls, MESSAGE_LIMITS) as channel:
            call = getattr(GRPCInferenceServiceStub(channel), method)
            try:
                return await call(request, timeout=timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise AskFailed(self._why(error, channel)) from None

    def _why(self, error: grpc.aio.AioRpcError, channel: grpc.aio.Channel) -> str:
        details = one_line(error.details() or "no details")
        unanswered = error.code() in {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        }
        # A server that answers UNAVAILABLE is connected.
        if unanswered and channel.get_state() is not grpc.ChannelConnectivity.READY:
            return f"cannot reach a server at {self.address}: {details}"
        return f"{details} ({error.code().name})"


def one_line(text: str) -> str:
    """Return `text` without line breaks, and without what a terminal would obey."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
