"""What is learnt from reports, over real gRPC: traffic, comparisons, and examples that are kept."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import NotFound
from coalmine.inference import inference_pb2 as oip
from tests.doubles.digit_reports import LOGITS, REQUEST, shadowed
from tests.doubles.observing import observing
from tests.doubles.oip_backend import (
    OipBackend,
    answering,
    failing,
    response_body,
)
from tests.doubles.reports import UNUSED, report, router_config


async def test_a_difference_is_counted_by_pair_and_output_and_kept_with_its_bodies(
    tmp_path: Path,
) -> None:
    answer = {"logits": LOGITS + np.float32(0.25), "label": np.array([3])}
    async with OipBackend(answering(**answer)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        sent = report(
            REQUEST, response_body(logits=LOGITS, label=np.array([3])), shadows=["canary"]
        )
        async with observing(config, tmp_path) as rig:
            await rig.send(sent)
            status = await rig.settled(1)
            (record,) = await rig.mismatches("logits")
            whole = await rig.plane.queries.mismatch("digits", record.id)
            assert await rig.mismatches("label") == []
            with pytest.raises(NotFound, match="no kept mismatch"):
                await rig.plane.queries.mismatch("digits", "no-such")
            pair = {"route": "digits", "reference": "stable", "candidate": "canary"}
            assert rig.metric("comparisons_total", **pair, outcome="mismatch") == 1
            both = [
                rig.metric("output_comparisons_total", **pair, output=name, outcome="mismatch")
                for name in ("logits", "label")
            ]
    (counts,) = status.comparisons
    assert (counts.reference, counts.candidate) == ("stable", "canary")
    assert (counts.match, counts.mismatch, counts.error, counts.skipped) == (0, 1, 0, 0)
    outputs = {each.output: (each.match, each.mismatch) for each in counts.outputs}
    assert outputs == {"logits": (0, 1), "label": (1, 0)}
    assert both == [1, 0]
    assert counts.outputs[0].max_abs_diff == pytest.approx(0.25)
    assert record.trace_id == sent.trace_id
    assert not record.request
    assert whole.request == REQUEST
    assert oip.ModelInferResponse.FromString(whole.candidate_response).outputs[0].name == "logits"
    assert [each.kind for each in whole.differences] == ["value"]


async def test_big_answers_are_compared_too_and_kept_without_their_bodies(tmp_path: Path) -> None:
    logits = np.arange(1_000_000, dtype=np.float32)
    other = logits.copy()
    other[777_777] += 100
    async with OipBackend(answering(logits=other)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path) as rig:
            await rig.send(report(REQUEST, response_body(logits=logits), shadows=["canary"]))
            await rig.settled(1)
            (record,) = await rig.mismatches("")
    assert record.bodies_dropped
    assert (list(record.differences[0].index), record.differences[0].differing) == ([777_777], 1)


async def test_a_shadow_that_is_unavailable_is_an_error_of_the_candidate_and_kept_as_no_example(
    tmp_path: Path,
) -> None:
    loading = failing(grpc.StatusCode.UNAVAILABLE, "the model is loading")
    async with (
        OipBackend(loading) as shadow,
        observing(router_config(stable=UNUSED, canary=shadow.address), tmp_path) as rig,
    ):
        await rig.send(shadowed(), shadowed())
        status = await rig.settled(2)
        assert await rig.mismatches("") == []
    assert status.comparisons[0].error == 2
    assert status.shadows[0].sent == 2


async def test_copies_for_a_dead_shadow_are_dropped_and_no_error_of_the_candidate(
    tmp_path: Path,
) -> None:
    async with OipBackend() as gone:
        address = gone.address
    async with observing(router_config(stable=UNUSED, canary=address), tmp_path) as rig:
        await rig.send(shadowed(), shadowed())
        status = await rig.settled(2)
    assert not status.comparisons
    assert dict(status.shadows[0].dropped) == {"no_address": 2}


async def test_what_a_variant_answered_is_counted_by_status_latency_and_split(
    tmp_path: Path,
) -> None:
    config = router_config(stable=UNUSED, canary=UNUSED)
    async with observing(config, tmp_path) as rig:
        await rig.send(
            *(report() for _ in range(98)),
            report(status_code=14, assignment=3, duration_ns=900_000_000),
            report(status_code=3, duration_ns=900_000_000),
            report(route="gone", variant="gone", status_code=5),
        )
        stable, canary = rig.status().variants
        key = {"route": "digits", "variant": "stable"}
        code = rig.metric("requests_total", **key, code="UNAVAILABLE")
        nowhere = rig.metric("requests_total", route="", variant="", code="NOT_FOUND")
        fast = rig.metric("request_duration_seconds_bucket", **key, le="0.005")
        received = rig.status().reports.received
    assert stable.requests == 100
    assert dict(stable.requests_by_status) == {"OK": 98, "UNAVAILABLE": 1, "INVALID_ARGUMENT": 1}
    assert stable.split_requests == 99
    assert 2.5 < stable.latency_p50_ms < 3.2
    assert stable.latency_p99_ms > 800
    assert canary.requests == 0
    assert (code, nowhere, fast, received) == (1, 1, 98, 101)


async def test_an_odd_report_costs_no_other_of_its_stream(tmp_path: Path) -> None:
    config = router_config(stable=UNUSED, canary=UNUSED)
    async with observing(config, tmp_path) as rig:
        odd = [report(trace_id=b""), report(span_id=b"x" * 9), report(parent_span_id=b"x")]
        await rig.send(*odd, report())
        assert rig.status().reports.received == 4
        assert rig.metric("reports_unreadable_total") == 3


async def test_a_fallback_shows_as_a_failure_of_the_chosen_and_an_answer_of_stable(
    tmp_path: Path,
) -> None:
    fallback: dict[str, Any] = {
        "assignment": pb.ASSIGNMENT_FALLBACK,
        "chosen": "canary",
        "chosen_by": pb.ASSIGNMENT_SPLIT,
    }
    failed, not_ready = report(**fallback), report(**fallback)
    failed.attempts.insert(0, pb.Attempt(span_id=b"attempt0", variant="canary", status_code=14))
    away = report(variant="", status_code=8, turned_away="in_flight")
    del away.attempts[:]
    async with observing(router_config(stable=UNUSED, canary=UNUSED), tmp_path) as rig:
        await rig.send(report(), failed, not_ready, away)
        status = rig.status()
        key = {"route": "digits", "variant": "canary"}
        told = rig.metric("fallbacks_total", **key, reason="not_ready")
        refused = rig.metric("turned_away_total", route="digits", reason="in_flight")
    stable, canary = status.variants
    assert (stable.requests, canary.requests) == (3, 1)
    assert dict(canary.requests_by_status) == {"UNAVAILABLE": 1}
    assert dict(canary.fallbacks) == {"UNAVAILABLE": 1, "not_ready": 1}
    assert canary.latency_p50_ms == 0
    assert (stable.split_requests, canary.split_requests) == (1, 2)
    assert dict(status.turned_away) == {"in_flight": 1}
    assert (told, refused) == (1, 1)
