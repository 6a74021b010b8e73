"""A mismatch as a message, which is kept as an example. Pure. Every text and list is bounded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from coalmine.control.v1 import control_pb2 as pb
from coalmine.inference import MODEL_INFER
from coalmine.inference import inference_pb2 as oip
from coalmine.tensors import RANK_MAX
from coalmine_router.config.copies_section import KeptConfig
from coalmine_router.metadata import NOTE
from coalmine_router.observer.comparison.result import ComparedAnswer, Difference
from coalmine_router.observer.examples.redaction import (
    KeepSettings,
    redacted_comparison,
    request_without_inputs,
)
from coalmine_router.observer.observed_request import ObservedRequest, PairResult

TEXT_MAX: Final = 1_024
SHAPES_MAX: Final = 64


def mismatch_record(
    record_id: str,
    observed: ObservedRequest,
    found: PairResult,
    *,
    reference: ComparedAnswer,
    candidate: ComparedAnswer,
    settings: KeepSettings,
    segment: str = "",
) -> pb.Mismatch:
    """Return the record of a mismatch, with what the route allows to be kept.

    The answers are those that were compared. In an audit whose caller got the candidate's answer,
    the reference's answer is the copy's. All three bodies are kept, or none where one is too large.
    """
    capture = settings.capture
    comparison = redacted_comparison(found.comparison, capture)
    record = pb.Mismatch(
        id=record_id,
        at_ns=found.started_ns,
        route=observed.report.route,
        reference=found.reference,
        candidate=found.candidate,
        trace_id=observed.report.trace_id,
        differences=[difference_message(each) for each in comparison.differences],
        role=found.role,
        kind=comparison.kind,
        capture=capture,
        rows=comparison.rows,
        rows_mismatch=comparison.rows_mismatch,
        segment=short_text(segment),
        reference_version=short_text(found.reference_version),
        candidate_version=short_text(found.candidate_version),
        reference_address=short_text(found.reference_address),
        candidate_address=short_text(found.candidate_address),
        trial=found.trial,
    )
    if capture != "none":
        record.request_id = short_text(observed.request_id())
        record.note = short_text(_note_of(observed))
        _add_shapes(record, observed, reference, candidate)
    if capture == "full":
        _bodies_of(observed, reference, candidate, settings.kept).add_to(record)
    return record


def difference_message(difference: Difference) -> pb.Difference:
    """Return how one output differs, with its worst element."""
    worst = difference.worst[0]
    return pb.Difference(
        output=short_text(difference.output),
        kind=difference.kind,
        index=worst.index,
        expected=short_text(worst.expected),
        actual=short_text(worst.actual),
        max_abs_diff=difference.max_abs_diff,
        differing=difference.differing,
        elements=difference.elements,
        rows=difference.rows,
        rows_mismatch=difference.rows_mismatch,
        rule=difference.rule,
        score=difference.score,
        badness=difference.badness,
    )


def short_text(text: str) -> str:
    """Return the text, cut to 1,024 characters: callers and models choose names."""
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"


def _note_of(observed: ObservedRequest) -> str:
    """Return the caller's first note on its request; "" where there is none."""
    notes = (each.value for each in observed.report.metadata if each.key == NOTE)
    return next(notes, b"").decode(errors="replace")


# ---------------------------------------------------------------- bodies


@dataclass(frozen=True, slots=True)
class _Bodies:
    request: bytes
    reference: bytes
    candidate: bytes
    inputs_dropped: Sequence[str]
    bytes_max: int

    def add_to(self, record: pb.Mismatch) -> None:
        record.inputs_dropped.extend(self.inputs_dropped)
        bodies = (self.request, self.reference, self.candidate)
        if any(len(body) > self.bytes_max for body in bodies):
            record.bodies_dropped = True
            return
        record.request, record.reference_response, record.candidate_response = bodies


def _bodies_of(
    observed: ObservedRequest,
    reference: ComparedAnswer,
    candidate: ComparedAnswer,
    kept: KeptConfig,
) -> _Bodies:
    if _is_inference(observed):
        request, dropped = request_without_inputs(observed.request, kept.drop_inputs)
    else:  # another service's request has no inputs to drop singly
        request, dropped = b"" if kept.drop_inputs else observed.request, kept.drop_inputs
    return _Bodies(request, reference.body, candidate.body, dropped, kept.body_bytes_max)


# ---------------------------------------------------------------- shapes


class _TensorForm(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> Sequence[int]: ...


def _add_shapes(
    record: pb.Mismatch,
    observed: ObservedRequest,
    reference: ComparedAnswer,
    candidate: ComparedAnswer,
) -> None:
    if not _is_inference(observed):
        return
    record.shapes.extend(_tensor_shapes("request", _request_tensors(observed.request)))
    record.shapes.extend(_tensor_shapes("reference", _response_tensors(reference.body)))
    record.shapes.extend(_tensor_shapes("candidate", _response_tensors(candidate.body)))


def _is_inference(observed: ObservedRequest) -> bool:
    return observed.report.method == MODEL_INFER


def _request_tensors(body: bytes) -> Sequence[_TensorForm]:
    try:
        return oip.ModelInferRequest.FromString(body).inputs
    except DecodeError:
        return ()


def _response_tensors(body: bytes) -> Sequence[_TensorForm]:
    try:
        return oip.ModelInferResponse.FromString(body).outputs
    except DecodeError:
        return ()


def _tensor_shapes(side: str, described: Iterable[_TensorForm]) -> Iterator[pb.TensorShape]:
    for each in islice(described, SHAPES_MAX):
        yield pb.TensorShape(
            side=side,
            name=short_text(each.name),
            datatype=short_text(each.datatype),
            shape=each.shape[:RANK_MAX],
        )
