"""Decoding of requests: malformed bytes become an error that the method gets. Pure.

A deserialiser must not raise. gRPC would answer UNKNOWN, and log a traceback for each call.
"""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from coalmine.errors import InvalidRequest

Read = TypeVar("Read")


def decoder_of(
    read: Callable[[bytes], Read], method: str
) -> Callable[[bytes], Read | InvalidRequest]:
    """Return the decoder of a method's requests. It returns the message, or the error."""

    def read_or_error(data: bytes) -> Read | InvalidRequest:
        try:
            return read(data)
        except DecodeError:
            return malformed_request(method)

    return read_or_error


def malformed_request(method: str) -> InvalidRequest:
    """Return the error for bytes that are no request of `method`."""
    return InvalidRequest(f"{method}: malformed message")
