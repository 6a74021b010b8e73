"""One request with what was answered, and what its copies have come to so far."""

from dataclasses import dataclass, field
from typing import Final, Self

from google.protobuf.message import DecodeError

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine.inference import inference_pb2 as oip
from coalmine_router.observer.compare import Answer, Comparison

_BODIES: Final = ("request_body", "response_body")


@dataclass(frozen=True, slots=True)
class ShadowCall:
    """A copy's way to a shadow, and what came back."""

    variant: str
    backend: str
    address: str
    span_id: bytes
    started_ns: int
    duration_ns: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and when it was made."""

    comparison: Comparison
    span_id: bytes
    started_ns: int
    duration_ns: int


@dataclass(slots=True)
class Exchange:
    """`report` is without bodies; `waiting` copies have come to nothing yet."""

    report: pb.Report
    request: bytes
    response: bytes
    waiting: int
    shadowed: list[tuple[ShadowCall, Compared]] = field(default_factory=list)

    @classmethod
    def of(cls, report: pb.Report) -> Self:
        """Return the exchange of a report, which is emptied of its bodies. Raises InvalidRequest.

        What is returned shares no memory with the batch that the report came in: a report that
        waits for a shadow would keep its whole batch alive.
        """
        _check_ids(report)
        if not report.shadows:
            return cls(report, b"", b"", waiting=0)
        request, response = report.request_body, report.response_body
        for name in _BODIES:
            report.ClearField(name)
        alone = pb.Report()
        alone.CopyFrom(report)
        return cls(alone, request, response, waiting=len(report.shadows))

    @property
    def size_bytes(self) -> int:
        """What the bodies take in memory."""
        return len(self.request) + len(self.response)

    def request_id(self) -> str:
        """Return the id that the caller gave the request; empty where it can't be known."""
        try:
            return oip.ModelInferRequest.FromString(self.request).id
        except DecodeError:
            return ""


def _check_ids(report: pb.Report) -> None:
    # One span with an id of another size would fail the export of its whole batch.
    spans = [report.span_id, *(attempt.span_id for attempt in report.attempts)]
    if report.parent_span_id:
        spans.append(report.parent_span_id)
    if len(report.trace_id) != 16 or any(len(each) != 8 for each in spans):
        raise InvalidRequest("a report's trace id has 16 bytes, its span ids have 8")
