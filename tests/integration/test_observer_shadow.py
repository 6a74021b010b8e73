"""Reports with copies, over real gRPC, to a scripted shadow: what is called, compared, counted."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import NotFound
from coalmine.inference import inference_pb2 as oip
from coalmine_router.observer.shadow import ShadowLimits
from tests.doubles.observing import observing
from tests.doubles.oip_backend import (
    INFER,
    Answer,
    OipBackend,
    answering,
    failing,
    hanging,
    request_body,
    response_body,
)
from tests.doubles.reports import UNUSED, report, router_config

PIXELS = np.arange(4, dtype=np.float32).reshape(1, 4)
LOGITS = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)
REQUEST = request_body("digits", request_id="r-1", pixels=PIXELS)
RESPONSE = response_body(logits=LOGITS)


def shadowed(**fields: Any) -> pb.Report:
    return report(REQUEST, RESPONSE, shadows=["canary"], **fields)


async def test_a_shadow_is_asked_with_the_callers_bytes_and_its_own_model_name(
    tmp_path: Path,
) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path) as rig:
            await rig.send(shadowed(metadata=[("x-user-id", b"ann"), ("k-bin", b"\x00\xff")]))
            await rig.settled(1)
        (seen,) = shadow.seen
    assert seen.method == INFER
    assert seen.body.startswith(REQUEST)
    assert seen.infer.model_name == "digits-next"
    assert seen.infer.model_version == "2"
    assert seen.values("x-user-id") == ["ann"]
    assert seen.values("k-bin") == [b"\x00\xff"]


async def test_a_shadow_is_shown_the_routers_token_in_the_place_of_the_callers(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("routers\n")
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        known = config.backends["canary"]
        config.backends["canary"] = known.model_copy(update={"token_file": file})
        async with observing(config, tmp_path) as rig:
            await rig.send(shadowed(metadata=[("authorization", b"Bearer callers")]))
            await rig.settled(1)
        (seen,) = shadow.seen
    assert seen.values("authorization") == ["Bearer routers"]


@pytest.mark.parametrize(("sampled", "flag"), [(True, "01"), (False, "00")])
async def test_a_shadow_gets_the_callers_trace_and_head_decision(
    tmp_path: Path, sampled: bool, flag: str
) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        sent = shadowed(sampled=sampled, tracestate="a=b")
        async with observing(config, tmp_path) as rig:
            await rig.send(sent)
            await rig.settled(1)
        (parent,) = shadow.seen[0].values("traceparent")
        assert shadow.seen[0].values("tracestate") == ["a=b"]
    version, trace_id, span_id, got = str(parent).split("-")
    assert (version, trace_id, got) == ("00", sent.trace_id.hex(), flag)
    assert span_id not in {sent.span_id.hex(), sent.attempts[0].span_id.hex()}


@pytest.mark.parametrize(
    ("route_timeout", "at_most_s"),
    [("200ms", 0.2), ("30s", 5.0)],
    ids=["the route's", "five seconds"],
)
async def test_a_shadows_deadline_is_the_routes_but_five_seconds_at_most(
    tmp_path: Path, route_timeout: str, at_most_s: float
) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = router_config(
            stable=UNUSED, canary=shadow.address, route={"timeout": route_timeout}
        )
        async with observing(config, tmp_path) as rig:
            await rig.send(shadowed())
            await rig.settled(1)
        remaining = shadow.seen[0].time_remaining_s
    assert remaining is not None
    # The wire carries it rounded up.
    assert at_most_s / 2 < remaining <= at_most_s * 1.1


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
            (record,) = await rig.observer.mismatches("digits", "logits", 0)
            whole = await rig.observer.mismatch("digits", record.id)
            assert await rig.observer.mismatches("digits", "label", 0) == []
            with pytest.raises(NotFound, match="no kept mismatch"):
                await rig.observer.mismatch("digits", "no-such")
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
            (record,) = await rig.observer.mismatches("digits", "", 0)
    assert record.bodies_dropped
    assert (list(record.differences[0].index), record.differences[0].differing) == ([777_777], 1)


async def test_a_dead_shadow_is_an_error_of_the_candidate_and_kept_as_no_example(
    tmp_path: Path,
) -> None:
    async with OipBackend() as gone:
        address = gone.address
    async with observing(router_config(stable=UNUSED, canary=address), tmp_path) as rig:
        await rig.send(shadowed(), shadowed())
        status = await rig.settled(2)
        assert await rig.observer.mismatches("digits", "", 0) == []
    assert status.comparisons[0].error == 2
    assert status.shadows[0].sent == 2


async def test_a_shadow_that_hangs_holds_up_no_other_and_is_bounded(tmp_path: Path) -> None:
    limits = ShadowLimits(queue_copies_max=3, calls_max=2)
    async with OipBackend(hanging()) as hung, OipBackend(answering(logits=LOGITS)) as well:
        config = router_config(stable=UNUSED, canary=hung.address, int8=well.address)
        async with observing(config, tmp_path, limits=limits) as rig:
            both = ["canary", "int8"]
            # A copy is taken from its queue as soon as a worker runs, so the calls come first.
            await rig.send(*(report(REQUEST, RESPONSE, shadows=both) for _ in range(2)))
            await hung.wait_seen(2)
            for _ in range(10):
                await rig.send(report(REQUEST, RESPONSE, shadows=both))
            status = await rig.settled(12 + 7)
            shadows = {each.variant: each for each in status.shadows}
            assert len(hung.seen) == 2
        after = {each.variant: each for each in rig.status().shadows}
    assert (shadows["int8"].offered, shadows["int8"].sent) == (12, 12)
    assert shadows["canary"].offered == 12
    assert shadows["canary"].sent == 0
    assert shadows["canary"].dropped == {"queue_full": 7}
    assert after["canary"].dropped == {"queue_full": 7, "stopping": 5}


async def test_a_copy_that_waited_too_long_is_given_up_unsent(tmp_path: Path) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path, limits=ShadowLimits(wait_ns_max=0)) as rig:
            await rig.send(shadowed())
            status = await rig.settled(1)
        assert shadow.seen == []
    assert dict(status.shadows[0].dropped) == {"expired": 1}


async def test_a_hung_shadow_is_given_up_at_its_deadline(tmp_path: Path) -> None:
    async with OipBackend(hanging()) as hung:
        config = router_config(stable=UNUSED, canary=hung.address, route={"timeout": "50ms"})
        async with observing(config, tmp_path) as rig:
            await rig.send(shadowed())
            status = await rig.settled(1)
    assert status.comparisons[0].error == 1


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (report(shadows=["canary"], uncopied="too_large"), "too_large"),
        (report(shadows=["canary"], uncopied="primary_failed", status_code=14), "primary_failed"),
        (report(REQUEST, shadows=["canary"], status_code=14), "primary_failed"),
        (report(REQUEST, RESPONSE, shadows=["gone"]), "unknown_variant"),
        (report(REQUEST, RESPONSE, shadows=["canary"], route="gone"), "unknown_variant"),
        (report(REQUEST, RESPONSE, shadows=["canary"], method="a.B/C"), "not_comparable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_copy_that_can_not_be_made_is_counted_with_its_reason(
    tmp_path: Path, sent: pb.Report, reason: str
) -> None:
    async with OipBackend() as shadow:
        async with observing(router_config(stable=UNUSED, canary=shadow.address), tmp_path) as rig:
            await rig.send(sent)
            dropped = [dict(totals.dropped) for _, totals in rig.observer._shadows.totals()]
        assert shadow.seen == []
    assert dropped == [{reason: 1}]


async def test_copies_offered_are_those_sent_and_those_dropped(tmp_path: Path) -> None:
    answer = answering(logits=LOGITS)
    limits = ShadowLimits(queue_copies_max=8, bytes_max=16 * len(REQUEST + RESPONSE))
    async with OipBackend(failing(grpc.StatusCode.INTERNAL)) as bad, OipBackend(answer) as good:
        config = router_config(stable=UNUSED, canary=bad.address, int8=good.address)
        async with observing(config, tmp_path, limits=limits) as rig:
            for _ in range(20):
                await rig.send(
                    *(report(REQUEST, RESPONSE, shadows=["canary", "int8"]) for _ in range(10))
                )
            status = await rig.settled(400)
    assert sum(each.offered for each in status.shadows) == 400
    for each in status.shadows:
        assert each.offered == each.sent + sum(each.dropped.values())
    sent = {each.variant: each.sent for each in status.shadows}
    pairs = {each.candidate: each for each in status.comparisons}
    assert pairs["canary"].error == sent["canary"] > 0
    assert pairs["int8"].match == sent["int8"] > 0


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


async def test_it_is_settled_once_the_last_copy_has_come_to_its_end(tmp_path: Path) -> None:
    released = asyncio.Event()
    async with OipBackend(lambda _: Answer(RESPONSE, until=released)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path) as rig:
            await rig.observer.settled()
            await rig.send(shadowed())
            await shadow.wait_seen(1)
            settled = asyncio.ensure_future(rig.observer.settled())
            await asyncio.sleep(0)
            assert not settled.done()
            released.set()
            await asyncio.wait_for(settled, 10)
            assert rig.compared() == 1
