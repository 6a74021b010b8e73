"""The router's spans as a collector gets them: the whole tree, and which trees are kept."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine.spans.span_export import CountedSpans
from coalmine_router.observer.copies.copy_limits import CopyLimits
from tests.doubles.digit_reports import LOGITS, REQUEST, RESPONSE, shadowed
from tests.doubles.observing import Observing, observing
from tests.doubles.oip_backend import (
    INFER,
    Answer,
    OipBackend,
    Seen,
    answering,
    failing,
    hanging,
    response_body,
)
from tests.doubles.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.doubles.reports import STARTED_NS, UNUSED, report, router_config
from tests.doubles.waiting import eventually

MISMATCH = "compare canary: mismatch"
OTHER = np.array([[0.1, 0.5, 0.2]], dtype=np.float32)


@contextmanager
def exporting(receiver: OtlpReceiver) -> Iterator[CountedSpans]:
    spans = CountedSpans(OTLPSpanExporter(endpoint=receiver.endpoint, insecure=True))
    try:
        yield spans
    finally:
        spans.shutdown()


async def received(spans: CountedSpans) -> None:
    assert await asyncio.to_thread(spans.force_flush)


def answered(rig: Observing, variant: str) -> int:
    return sum(each.answered for each in rig.status().shadows if each.variant == variant)


def by_role(trace: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    return {
        str(each.attributes.get(t.ROLE, each.name if each.kind == "INTERNAL" else each.kind)): each
        for each in trace
    }


async def test_a_mismatch_is_one_trace_with_everything_that_differs(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(answering(logits=OTHER)) as shadow:
            config = router_config(stable=UNUSED, canary=shadow.address)
            sent = report(REQUEST, RESPONSE, shadows=["canary"], parent_span_id=b"callerid")
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(sent)
                await rig.settled(1)
            await received(spans)
        trace = receiver.trace(sent.trace_id.hex())
    tree = by_role(trace)
    assert set(tree) == {"SERVER", "primary", "shadow", MISMATCH}
    assert (tree["primary"].name, tree["shadow"].name) == ("primary stable", "shadow canary")
    assert len(trace) == 4

    server = tree["SERVER"]
    assert server.service == "coalmine-router"
    assert server.name == INFER
    assert server.parent_id == b"callerid".hex()
    assert server.span_id == sent.span_id.hex()
    assert (server.start_ns, server.end_ns) == (STARTED_NS, STARTED_NS + 3_000_000)
    assert server.attributes == {
        t.RPC_SYSTEM: "grpc",
        t.RPC_METHOD: INFER,
        t.RPC_STATUS: "OK",
        t.DURATION_MS: 3.0,
        t.ROUTE: "digits",
        t.MODEL: "digits",
        t.VARIANT: "stable",
        t.ASSIGNMENT: "split",
        t.REVISION: 7,
        t.REQUEST_ID: "r-1",
        t.FLAG_KEY: "digits",
        t.FLAG_VARIANT: "stable",
        t.FLAG_VERSION: "7",
        f"{t.CANDIDATE_PREFIX}canary": "mismatch",
    }

    below = {"primary", "shadow", MISMATCH}
    assert {tree[each].parent_id for each in below} == {server.span_id}
    assert tree["primary"].span_id == sent.attempts[0].span_id.hex()
    assert tree["primary"].attributes[t.SERVER_PORT] == 8001
    host, port = shadow.address.split(":")
    assert tree["shadow"].kind == "CLIENT"
    assert tree["shadow"].attributes == {
        t.RPC_SYSTEM: "grpc",
        t.RPC_METHOD: INFER,
        t.RPC_STATUS: "OK",
        t.ROLE: "shadow",
        t.VARIANT: "canary",
        t.BACKEND: "canary",
        t.SERVER_ADDRESS: host,
        t.SERVER_PORT: int(port),
    }
    (parent,) = shadow.seen[0].values("traceparent")
    assert tree["shadow"].span_id in str(parent)

    compare = tree[MISMATCH]
    assert compare.status == "UNSET"
    assert compare.attributes[t.ROUTE] == "digits"
    assert compare.attributes[t.COMPARE_ROLE] == "shadow"
    assert compare.attributes[t.COMPARE_OUTCOME] == "mismatch"
    assert compare.attributes[f"{t.COMPARE_OUTPUT_PREFIX}logits"] == "mismatch"
    assert compare.attributes[f"{t.COMPARE_OVER_PREFIX}1e-1"] is True
    assert compare.attributes[t.COMPARE_REFERENCE] == "stable"
    assert compare.attributes[t.COMPARE_CANDIDATE] == "canary"
    assert compare.attributes[t.COMPARE_KIND] == "value"
    assert compare.attributes[t.COMPARE_DIFF_BUCKET] == "1e0"
    assert abs(compare.attributes[t.COMPARE_MAX_ABS_DIFF] - 0.2) < 1e-6
    said = compare.event(t.DIFFERENCE_EVENT).attributes
    assert abs(said.pop(t.DIFFERENCE_MAX_ABS_DIFF) - 0.2) < 1e-6
    assert said == {
        "name": "logits",
        "kind": "value",
        "index": "[0, 1]",
        "expected": "0.7",
        "actual": "0.5",
        "rows": 1,
        "rows_mismatch": 1,
        "rule": "close",
    }


async def test_unsampled_every_mismatch_is_kept_whole_and_no_match(tmp_path: Path) -> None:
    """The shadow answers wrongly to every third request."""
    bodies = {True: response_body(logits=OTHER), False: RESPONSE}
    count = 0

    def script(_: Seen) -> Answer:
        nonlocal count
        count += 1
        return Answer(bodies[count % 3 == 0])

    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(script) as shadow:
            config = router_config(stable=UNUSED, canary=shadow.address)
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(*(shadowed(sampled=False) for _ in range(300)))
                status = await rig.settled(300)
            await received(spans)
        compared = receiver.having(t.COMPARE_OUTCOME)
        tipping = {each.trace_id for each in compared if t.TIPPED in each.attributes}
        traces = {each.trace_id for each in compared}
        sizes = {len(receiver.trace(each)) for each in traces}
        verdicts = receiver.having(t.VERDICT)
        everything = len(receiver.spans)
    assert status.comparisons[0].mismatch == 100
    outcomes = {each.trace_id: each.attributes[t.COMPARE_OUTCOME] for each in compared}
    matches = {trace_id for trace_id, outcome in outcomes.items() if outcome == "match"}
    assert matches <= tipping
    assert (len(tipping), len(verdicts), len(traces - matches)) == (1, 1, 100)
    assert sizes == {4}
    assert everything == 4 * len(traces) + 1
    assert spans.totals()["exported"] == everything


async def test_unsampled_errors_failures_and_slow_requests_are_kept(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(failing(grpc.StatusCode.UNAVAILABLE, "gone fishing")) as shadow:
            config = router_config(
                stable=UNUSED, canary=shadow.address, route={"gates": {"slow": {"over": "100ms"}}}
            )
            error = shadowed(sampled=False)
            failed = report(sampled=False, status_code=14, status_message="no backend")
            slow = report(sampled=False, duration_ns=100_000_001)
            plain = report(sampled=False, duration_ns=100_000_000)
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(error, failed, slow, plain)
                await rig.settled(1)
            await received(spans)
        kept = [len(receiver.trace(each.trace_id.hex())) for each in (error, failed, slow, plain)]
        tree = by_role(receiver.trace(error.trace_id.hex()))
        (server,) = receiver.trace(failed.trace_id.hex())[:1]
    assert kept == [4, 2, 2, 0]
    assert (tree["shadow"].status, tree["shadow"].status_text) == ("ERROR", "gone fishing")
    assert tree["shadow"].attributes[t.RPC_STATUS] == "UNAVAILABLE"
    assert tree["compare canary: error"].attributes[t.COMPARE_OUTCOME] == "error"
    assert tree["compare canary: error"].attributes[t.COMPARE_KIND] == "status"
    assert t.COMPARE_MAX_ABS_DIFF not in tree["compare canary: error"].attributes
    assert (server.status, server.status_text) == ("ERROR", "no backend")


async def test_unsampled_a_request_that_fell_back_is_kept_with_the_call_that_failed(
    tmp_path: Path,
) -> None:
    fallback: dict[str, Any] = {
        "sampled": False,
        "assignment": pb.ASSIGNMENT_FALLBACK,
        "chosen": "canary",
    }
    failed, not_ready = report(**fallback), report(**fallback)
    call: dict[str, Any] = {"variant": "canary", "status_code": 14, "status_message": "canary gone"}
    failed.attempts.insert(0, pb.Attempt(span_id=b"attempt0", **call))
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        config = router_config(stable=UNUSED, canary=UNUSED)
        async with observing(config, tmp_path, spans=spans) as rig:
            await rig.send(failed, not_ready)
        await received(spans)
        trace = receiver.trace(failed.trace_id.hex())
        assert receiver.trace(not_ready.trace_id.hex()) == []
    calls = {str(each.attributes[t.VARIANT]): each for each in trace if each.kind == "CLIENT"}
    (server,) = (each for each in trace if each.kind == "SERVER")
    assert server.attributes[t.CHOSEN] == "canary"
    assert (server.status, calls["stable"].status) == ("UNSET", "UNSET")
    assert (calls["canary"].status, calls["canary"].status_text) == ("ERROR", "canary gone")
    assert {each.name for each in calls.values()} == {"primary canary", "fallback stable"}
    assert [each.attributes.get(t.FAILED) for each in (server, *calls.values())].count(True) == 1


async def test_a_tree_is_whole_when_its_last_shadow_is_done(tmp_path: Path) -> None:
    let_go = asyncio.Event()

    def late(_: Seen) -> Answer:
        return Answer(RESPONSE, until=let_go)

    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(late) as slow, OipBackend(answering(logits=LOGITS)) as fast:
            config = router_config(stable=UNUSED, canary=slow.address, int8=fast.address)
            sent = report(REQUEST, RESPONSE, shadows=["canary", "int8"])
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(sent)
                await eventually(lambda: answered(rig, "int8") == 1)
                await received(spans)
                early = receiver.trace(sent.trace_id.hex())
                let_go.set()
                await rig.settled(2)
            await received(spans)
        trace = receiver.trace(sent.trace_id.hex())
    assert early == []
    assert len(trace) == 6
    assert len([each for each in trace if t.COMPARE_OUTCOME in each.attributes]) == 2


async def test_a_request_whose_copies_were_dropped_still_has_its_own_spans(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(hanging()) as hung:
            one_at_a_time = {"canary": {"share": 100, "concurrency": 1}}
            config = router_config(
                stable=UNUSED, canary=hung.address, route={"shadows": one_at_a_time}
            )
            limits = CopyLimits(queue_copies_max=1)
            sent = [shadowed() for _ in range(4)]
            async with observing(config, tmp_path, spans=spans, limits=limits) as rig:
                for each in sent:
                    await rig.send(each)
                await hung.wait_seen(1)
            await received(spans)
        sizes = [len(receiver.trace(each.trace_id.hex())) for each in sent]
    assert sizes == [2, 2, 2, 2]


async def test_without_a_reader_of_spans_comparisons_are_counted_all_the_same(
    tmp_path: Path,
) -> None:
    async with OipBackend(answering(logits=LOGITS)) as shadow:
        config = router_config(stable=UNUSED, canary=shadow.address)
        async with observing(config, tmp_path, spans=None) as rig:
            await rig.send(shadowed())
            status = await rig.settled(1)
    assert status.comparisons[0].match == 1


async def test_audit_and_noise_stand_in_the_tree_each_by_its_role(tmp_path: Path) -> None:
    """The canary differs from stable, and stable from itself."""
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with (
            OipBackend(answering(logits=OTHER)) as stable,
            OipBackend(answering(logits=OTHER)) as canary,
        ):
            config = router_config(stable=stable.address, canary=canary.address)
            sent = report(REQUEST, RESPONSE, audit="canary", noise=True)
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(sent)
                await rig.settled(2)
            await received(spans)
        trace = receiver.trace(sent.trace_id.hex())
    calls = {each.attributes[t.ROLE]: each for each in trace if each.kind == "CLIENT"}
    assert {role: each.attributes[t.VARIANT] for role, each in calls.items()} == {
        "primary": "stable",
        "audit": "canary",
        "noise": "stable",
    }
    compared = {
        each.attributes[t.COMPARE_ROLE]: each.attributes
        for each in trace
        if t.COMPARE_OUTCOME in each.attributes
    }
    assert set(compared) == {"audit", "noise"}
    assert compared["audit"][t.COMPARE_CANDIDATE] == "canary"
    assert compared["audit"][t.COMPARE_NOISE] == "mismatch"
    assert compared["noise"][t.COMPARE_CANDIDATE] == "stable"
    assert t.COMPARE_NOISE not in compared["noise"]
    (server,) = (each for each in trace if each.kind == "SERVER")
    told = {name for name in server.attributes if name.startswith(t.CANDIDATE_PREFIX)}
    assert told == {f"{t.CANDIDATE_PREFIX}canary"}


async def test_unsampled_a_reference_that_differs_from_itself_is_not_kept(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(answering(logits=OTHER)) as stable:
            config = router_config(stable=stable.address, canary=UNUSED)
            sent = report(REQUEST, RESPONSE, noise=True, sampled=False)
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(sent)
                await rig.settled(1)
            await received(spans)
        assert receiver.spans == []


async def test_a_failed_verdict_leads_to_the_comparison_that_tipped_it(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(answering(logits=OTHER)) as shadow:
            config = router_config(stable=UNUSED, canary=shadow.address)
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(*(shadowed(sampled=False) for _ in range(40)))
                await rig.settled(40)
            await received(spans)
        (verdict,) = receiver.having(t.VERDICT)
        (compare,) = (each for each in receiver.spans if t.TIPPED in each.attributes)
    assert (compare.name, compare.attributes[t.TIPPED]) == (MISMATCH, "fail")
    assert verdict.name == "verdict canary: fail"
    assert verdict.start_ns == compare.start_ns < verdict.end_ns
    assert verdict.links == ((compare.trace_id, compare.span_id),)
    assert verdict.trace_id != compare.trace_id
    said = verdict.attributes
    assert (verdict.status, said[t.VERDICT], said[t.VERDICT_BEFORE]) == (
        *("ERROR", "fail", "inconclusive"),
    )
    assert (said[t.VERDICT_GATE], said[f"{t.GATE_PREFIX}mismatch"]) == ("mismatch", "fail")
    assert (said[t.ROUTE], said[t.COMPARE_CANDIDATE], said[t.TRIAL]) == ("digits", "canary", 1)
    assert said[t.VERDICT_ALLOWED_RATE] == 0.01
    assert said[t.VERDICT_ALLOWED_RATE] < said[t.VERDICT_RATE_LOW] <= said[t.VERDICT_RATE] == 1.0
    assert said[t.VERDICT_TRACE_ID] == compare.trace_id


async def test_a_tenant_is_told_on_its_request_and_on_its_comparisons(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver, exporting(receiver) as spans:
        async with OipBackend(answering(logits=LOGITS)) as shadow:
            config = router_config(
                stable=UNUSED, canary=shadow.address, route={"segment": {"metadata": "x-tenant"}}
            )
            metadata = [("x-tenant", b"acme")]
            sent = report(REQUEST, RESPONSE, shadows=["canary"], metadata=metadata)
            async with observing(config, tmp_path, spans=spans) as rig:
                await rig.send(sent)
                await rig.settled(1)
            await received(spans)
        trace = receiver.trace(sent.trace_id.hex())
    told = {each.kind: each.attributes.get(t.SEGMENT) for each in trace}
    assert told == {"SERVER": "acme", "CLIENT": None, "INTERNAL": "acme"}
