"""Requests of which some make a shadow answer wrongly: what each is, and what is right. Pure.

A request says itself whether the shadow errs, so that who answers needs no memory of it.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from coalmine.inference import inference_pb2 as pb
from tests.doubles.oip_backend import request_body

MODEL: Final = "digits"
RIGHT_VERSION: Final = "1"
WRONG_VERSION: Final = "2"

_WIDTH: Final = 8
_PLANTED: Final = -1.0
_SPAN_ID: Final = "b7ad6b7169203331"


@dataclass(frozen=True)
class Plan:
    """So many requests, by number from 0; so many of them, by chance but seeded, are planted."""

    count: int
    planted_count: int

    @cached_property
    def planted(self) -> frozenset[int]:
        """The numbers of those that are planted."""
        return frozenset(random.Random(7).sample(range(self.count), self.planted_count))

    @property
    def arguments(self) -> tuple[str, str]:
        """What another process makes the same plan of, by `of`."""
        return str(self.count), str(self.planted_count)

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Plan":
        """Return the plan of another process."""
        count, planted_count = arguments
        return cls(int(count), int(planted_count))

    def body(self, number: int) -> bytes:
        """Return the serialised request; its id is `request_id`."""
        values = np.full((1, _WIDTH), 0.5, np.float32)
        values[0, 0] = _PLANTED if number in self.planted else 1.0
        values[0, 1] = number
        return request_body(MODEL, request_id=request_id(number), x=values)


def request_id(number: int) -> str:
    return f"planted-{number}"


def number_of(request_id: str) -> int:
    """Return the number of the request with that id."""
    return int(request_id.removeprefix("planted-"))


def trace_id(number: int) -> str:
    """Return the trace id that the caller gives: its half that samplers look at is as by chance."""
    low = hashlib.blake2b(f"trace {number}".encode(), digest_size=8).hexdigest()
    return f"{number + 1:016x}{low}"


def traceparent(number: int) -> str:
    """Return the caller's header, which asks for no sampling."""
    return f"00-{trace_id(number)}-{_SPAN_ID}-00"


def is_sampled(number: int, ratio: float) -> bool:
    """Return whether a sampler of trace ids takes it, as OpenTelemetry's TraceIdRatioBased does."""
    return int(trace_id(number)[16:], 16) < round(ratio * 2**64)


def answer(request: pb.ModelInferRequest) -> bytes:
    """Return the serialised answer: twice the input, but for a planted one's wrong version."""
    values = np.frombuffer(request.raw_input_contents[0], np.float32)
    found = _right(values)
    if request.model_version == WRONG_VERSION and values[0] == _PLANTED:
        found[3] += 0.25
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    response.outputs.add(name="y", datatype="FP32", shape=[1, _WIDTH])
    response.raw_output_contents.append(found.tobytes())
    return response.SerializeToString()


def is_right(body: bytes, request_body: bytes) -> bool:
    """Return whether an answer is the right one of the request."""
    response = pb.ModelInferResponse.FromString(body)
    request = pb.ModelInferRequest.FromString(request_body)
    values = np.frombuffer(request.raw_input_contents[0], np.float32)
    right = _right(values).tobytes()
    return response.id == request.id and list(response.raw_output_contents) == [right]


def _right(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(2) * values
