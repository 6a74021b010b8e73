"""Finished requests as the observer has them, made by hand: what was asked, answered and found."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.comparison.result import (
    ComparedAnswer,
    Comparison,
    Difference,
    Element,
    Kind,
    OutputResult,
)
from coalmine_router.observer.observed_request import (
    Copy,
    CopyCall,
    ObservedRequest,
    PairResult,
    Role,
)
from tests.doubles.oip_backend import request_body
from tests.doubles.reports import STARTED_NS, report

_ids = itertools.count(1)

MATCH = Comparison("match", outputs=(OutputResult("logits", "match"),), rows=1, max_abs_diff=3e-7)


def span_id() -> bytes:
    return (0xC0 << 56 | next(_ids)).to_bytes(8, "big")


def difference(
    output: str = "logits", kind: Kind = "value", max_abs_diff: float = 0.2, **more: Any
) -> Difference:
    return Difference(
        output,
        kind,
        (Element((0, 1), "0.7", "0.5"),),
        max_abs_diff=max_abs_diff,
        **{"differing": 1, "elements": 3, "rule": "close", **more},
    )


def mismatch(*differences: Difference) -> Comparison:
    """Return a mismatch of one row; of `logits` by 0.2 where nothing is said."""
    found = differences or (difference(),)
    return Comparison(
        "mismatch",
        found[0].kind,
        found,
        outputs_differing=len(found),
        outputs=tuple(
            OutputResult(each.output, "mismatch", rows_mismatch=1, difference=each)
            for each in found
        ),
        rows=1,
        rows_mismatch=1,
        max_abs_diff=max(each.max_abs_diff for each in found),
    )


def failed(code: str = "UNAVAILABLE", message: str = "gone fishing") -> Comparison:
    told = Difference("", "status", (Element((), "OK", f"{code}: {message}"),))
    return Comparison("error", "status", (told,))


def copy_call(
    variant: str = "canary",
    role: Role = "shadow",
    answer: ComparedAnswer | None = None,
    **more: Any,
) -> CopyCall:
    return CopyCall(
        Copy(role, variant),
        **{
            "backend": "green",
            "address": "10.0.0.7:8001",
            "span_id": span_id(),
            "started_ns": STARTED_NS + 3_100_000,
            "duration_ns": 2_000_000,
            "answer": answer or ComparedAnswer(),
            **more,
        },
    )


def pair_result(
    comparison: Comparison = MATCH, candidate: str = "canary", role: Role = "shadow", **more: Any
) -> PairResult:
    return PairResult(
        role,
        candidate=candidate,
        comparison=comparison,
        **{
            "reference": "stable",
            "span_id": span_id(),
            "started_ns": STARTED_NS + 5_200_000,
            "duration_ns": 50_000,
            "reference_version": "1",
            "candidate_version": "2",
            "reference_address": "10.0.0.1:8001",
            "candidate_address": "10.0.0.7:8001",
            "trial": 1,
            **more,
        },
    )


def observed_request(
    *what: PairResult,
    calls: Sequence[CopyCall] | None = None,
    request_id: str = "r-1",
    **fields: Any,
) -> ObservedRequest:
    """Return a request with these results, and a call for each where `calls` says nothing."""
    made = ObservedRequest.of(a_report(what, request_id, **fields))
    made.calls.extend(
        [copy_call(each.candidate, each.role) for each in what] if calls is None else calls
    )
    made.results.extend(what)
    return made


def a_report(what: Sequence[PairResult], request_id: str, **fields: Any) -> pb.Report:
    if not what:
        return report(**fields)
    body = request_body("digits", request_id=request_id, pixels=np.zeros((1, 4), np.float32))
    return report(body, b"", shadows=[each.candidate for each in what], **fields)
