"""Bytes that are no request: its method gets the error that they are. Pure.

A deserialiser can't raise: gRPC would answer UNKNOWN, and log a traceback for each call.
"""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from coalmine.errors import InvalidRequest

Read = TypeVar("Read")


def decoder_of(
    read: Callable[[bytes], Read], method: str
) -> Callable[[bytes], Read | InvalidRequest]:
    """Return what reads the requests of a method: the message, or the error that it is."""

    def read_or_error(data: bytes) -> Read | InvalidRequest:
        try:
            return read(data)
        except DecodeError:
            return malformed_request(method)

    return read_or_error


def malformed_request(method: str) -> InvalidRequest:
    """Return what the caller of `method` is told for bytes that are no request."""
    return InvalidRequest(f"{method}: malformed message")
