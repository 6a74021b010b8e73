"""One request with what was answered, its copies, and what was found by comparing them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine.inference import MODEL_INFER
from coalmine_router import wire
from coalmine_router.observer.comparison.result import ComparedAnswer, Comparison
from coalmine_router.observer.evidence.trial import Trial
from coalmine_router.observer.evidence.verdict import VerdictChange
from coalmine_router.observer.order import Turn
from coalmine_router.table import STABLE, Route

_BODIES: Final = ("request_body", "response_body")

Role = Literal["shadow", "audit", "noise"]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was drawn: for whom, and what for."""

    role: Role
    variant: str


@dataclass(slots=True)
class CopyCall:
    """A copy's way to its variant, and what came back."""

    copy: Copy
    backend: str
    address: str
    span_id: bytes
    started_ns: int
    duration_ns: int
    answer: ComparedAnswer


@dataclass(frozen=True, slots=True)
class PairResult:
    """What a candidate's answer was found to be beside the reference's, and when.

    `noise` is the reference's answer beside its own second one, where there was one. Versions are
    the models', as their answers say; of another service's answers, "". Addresses are host:port.
    """

    role: Role
    reference: str
    candidate: str
    comparison: Comparison
    span_id: bytes
    started_ns: int
    duration_ns: int
    noise: Comparison | None = None
    reference_version: str = ""
    candidate_version: str = ""
    reference_address: str = ""
    candidate_address: str = ""
    trial: int = 0


@dataclass(frozen=True, slots=True)
class PendingEvidence:
    """What is to be learnt from a comparison, once its turn has come.

    `failed` and `reference_failed`: whether each side, asked with a copy, failed by its own fault;
    None where that is not known.
    """

    result: PairResult
    trial: Trial
    failed: bool | None = None
    reference_failed: bool | None = None


@dataclass(slots=True, eq=False)
class ObservedRequest:
    """`report` is without bodies; `waiting` copies have come to nothing yet.

    The sender of copies counts them down, and adds a call for each that was answered.
    `route` is the one of the table that it was observed under; None: the table has none of its
    name. `segment` is None where the route has no segments.
    """

    report: pb.Report
    request: bytes
    response: bytes
    waiting: int
    calls: list[CopyCall] = field(default_factory=list)
    # As they may be told; pending evidence has them as they were found.
    results: list[PairResult] = field(default_factory=list)
    pending: list[PendingEvidence] = field(default_factory=list)
    # Its place in the route's order, until it is ready.
    turn: "Turn[ObservedRequest] | None" = None
    route: Route | None = None
    segment: str | None = None
    # The verdicts that it changed.
    changes: list[VerdictChange] = field(default_factory=list)
    _caller_id: str = ""

    @classmethod
    def of(cls, report: pb.Report, route: Route | None = None) -> Self:
        """Return the request of a report, which is emptied of its bodies. Raises InvalidRequest.

        What is returned shares no memory with the batch that the report came in: a report that
        waits for a copy would keep its whole batch alive.
        """
        _check_ids(report)
        copies = len(report.shadows) + bool(report.audit) + bool(report.noise)
        if not copies:
            return cls(report, b"", b"", waiting=0, route=route)
        request, response = report.request_body, report.response_body
        for name in _BODIES:
            report.ClearField(name)
        alone = pb.Report()
        alone.CopyFrom(report)
        return cls(alone, request, response, waiting=copies, route=route)

    @property
    def size_bytes(self) -> int:
        """What the bodies take in memory."""
        return len(self.request) + len(self.response)

    @property
    def took_ns(self) -> int:
        """How long the slowest of its answers took."""
        return max(self.report.duration_ns, *(call.duration_ns for call in self.calls), 0)

    def drop_bodies(self) -> None:
        """Let go of the bodies: what is still to be told of it needs none."""
        self._caller_id = self.request_id()
        self.request = self.response = b""
        for call in self.calls:
            call.answer = ComparedAnswer(b"", call.answer.code, call.answer.message)

    def request_id(self) -> str:
        """Return the id that the caller gave the request; empty where it can't be known."""
        if self.report.method != MODEL_INFER or not self.request:
            return self._caller_id
        try:
            return wire.request_id(self.request) or ""
        except InvalidRequest:
            return ""


def copies_of(report: pb.Report) -> Iterator[Copy]:
    """Return the copies that the proxy drew."""
    for name in report.shadows:
        yield Copy("shadow", name)
    if report.audit:
        yield Copy("audit", report.audit)
    if report.noise:
        yield Copy("noise", STABLE)


def _check_ids(report: pb.Report) -> None:
    # One span with an id of another size would fail the export of its whole batch.
    spans = [report.span_id, *(attempt.span_id for attempt in report.attempts)]
    if report.parent_span_id:
        spans.append(report.parent_span_id)
    if len(report.trace_id) != 16 or {*map(len, spans)} != {8}:
        raise InvalidRequest("a report's trace id has 16 bytes, its span ids have 8")
