"""A call to a server that runs, from the command line: its answer, or a line that says why not."""

import asyncio
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from coalmine.access.target import Target
from coalmine.command_line.failure import Failure
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine.limits import MESSAGE_LIMITS

_NOT_ANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def call_server(target: Target, method: str, request: Message, timeout_s: float) -> Any:
    """Return the answer. Raises Failure, or StartError for options that can't be used."""
    return asyncio.run(_call_method(target, method, request, timeout_s))


async def _call_method(target: Target, method: str, request: Message, timeout_s: float) -> Any:
    metadata = target.token_metadata()
    async with target.open_aio_channel(MESSAGE_LIMITS) as channel:
        call = getattr(GRPCInferenceServiceStub(channel), method)
        try:
            return await call(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise Failure(_failure_text(error, channel, target.address)) from None


def _failure_text(error: grpc.aio.AioRpcError, channel: grpc.aio.Channel, address: str) -> str:
    details = printable_line(error.details() or "no details")
    # A server that answers UNAVAILABLE is connected.
    connected = channel.get_state() is grpc.ChannelConnectivity.READY
    if error.code() in _NOT_ANSWERED and not connected:
        return f"cannot reach a server at {address}: {details}"
    return f"{details} ({error.code().name})"


def printable_line(text: str) -> str:
    """Return `text` without line breaks, and without what a terminal would obey."""
    return printable_text(" ".join(text.split()))


def printable_text(text: str) -> str:
    """Return `text` without what a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
