"""A router's control API with canned answers, which remembers what it was asked."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import (
    RouteControlServicer,
    add_RouteControlServicer_to_server,
)
from coalmine.inference import inference_pb2
from coalmine.tensors import Tensor, encode_inputs, encode_outputs
from tests.doubles.certificates import Pair

AT_NS = 1_790_000_000_000_000_000  # 2026-09-21 14:13:20 UTC


class FakeControl(RouteControlServicer):
    """Answers with `answers[METHOD]`, or with `errors[METHOD]` where there is one."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        # Of each request, what it had as `authorization`.
        self.shown: list[str | None] = []
        self.errors: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.answers: dict[str, Any] = {
            "ListRoutes": pb.ListRoutesResponse(revision=7, routes=[a_route()]),
            "GetRoute": a_status(),
            "SetWeights": a_change(stable=9_000, canary=1_000),
            "SetShadow": a_change(stable=10_000, canary=0),
            "GetHistory": a_history(),
            "ListTrials": a_list_of_trials(),
            "ListMismatches": pb.ListMismatchesResponse(mismatches=[a_mismatch()]),
            "GetMismatch": a_mismatch(bodies=True),
        }
        self.watched: list[pb.RouteStatus] = [a_status()]
        # What those see who watch again after the first time; empty: the same.
        self.watched_again: list[pb.RouteStatus] = []
        self.watch_ends = True
        self.watch_breaks = False
        self.watching = threading.Event()

    def ListRoutes(self, request: Any, context: Any) -> Any:
        return self._answer("ListRoutes", request, context)

    def GetRoute(self, request: Any, context: Any) -> Any:
        return self._answer("GetRoute", request, context)

    def SetWeights(self, request: Any, context: Any) -> Any:
        return self._answer("SetWeights", request, context)

    def SetShadow(self, request: Any, context: Any) -> Any:
        return self._answer("SetShadow", request, context)

    def GetHistory(self, request: Any, context: Any) -> Any:
        return self._answer("GetHistory", request, context)

    def ListTrials(self, request: Any, context: Any) -> Any:
        return self._answer("ListTrials", request, context)

    def ListMismatches(self, request: Any, context: Any) -> Any:
        return self._answer("ListMismatches", request, context)

    def GetMismatch(self, request: Any, context: Any) -> Any:
        return self._answer("GetMismatch", request, context)

    def WatchRoute(self, request: Any, context: Any) -> Iterator[pb.RouteStatus]:
        self._remember("WatchRoute", request, context)
        again = self.watching.is_set()
        yield from (self.watched_again if again else self.watched) or self.watched
        self.watching.set()
        if self.watch_breaks and not again:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the router ends")
        if not self.watch_ends:
            gone = threading.Event()
            context.add_callback(gone.set)
            gone.wait()

    def _answer(self, method: str, request: Any, context: Any) -> Any:
        self._remember(method, request, context)
        return self.answers[method]

    def _remember(self, method: str, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.shown.append(dict(context.invocation_metadata()).get("authorization"))
        if method in self.errors:
            context.abort(*self.errors[method])


@contextmanager
def serving(control: RouteControlServicer, pair: Pair | None = None) -> Iterator[str]:
    """Yield the address where `control` answers; by TLS, where there is a certificate for it."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_RouteControlServicer_to_server(control, server)
    if pair is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        both = pair.key.read_bytes(), pair.cert.read_bytes()
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([both]))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


# ---------------------------------------------------------------- canned answers


def a_route(stable: int = 10_000, canary: int = 0, shadow: int = 10_000) -> pb.Route:
    return pb.Route(
        name="digits",
        match_model="digits",
        variants=[
            pb.Variant(name="stable", backend="blue", version="1", weight_bp=stable),
            pb.Variant(name="canary", backend="blue", version="2", weight_bp=canary),
            pb.Variant(name="int8", backend="green", model="digits-int8"),
        ],
        shadows=[pb.Shadow(variant="int8", share_bp=shadow)] if shadow else [],
        sticky_metadata="x-user-id",
        timeout_ns=2_000_000_000,
        pinning=True,
        fallback=True,
        limits=pb.Limits(in_flight_max=512),
    )


def a_status() -> pb.RouteStatus:
    return pb.RouteStatus(
        route=a_route(),
        revision=7,
        counting_since_ns=AT_NS,
        variants=[
            pb.VariantStatus(
                name="stable",
                ready=True,
                requests=9_001,
                requests_by_status={"OK": 9_001},
                latency_p50_ms=1.24,
                latency_p99_ms=3.41,
                split_requests=9_001,
            ),
            pb.VariantStatus(
                name="canary",
                reason="model 'digits' version 2 is loading",
                requests=999,
                requests_by_status={"OK": 996, "INTERNAL": 1, "UNAVAILABLE": 2},
                latency_p50_ms=1.31,
                latency_p99_ms=14.02,
                split_requests=999,
                fallbacks={"not_ready": 40, "UNAVAILABLE": 2},
            ),
            pb.VariantStatus(name="int8", ready=True),
        ],
        shadows=[
            pb.ShadowCounts(
                variant="int8",
                role="shadow",
                offered=10_000,
                waiting=5,
                under_way=1,
                sent=9_984,
                timed_out=2,
                failed=3,
                answered=9_979,
                compared=9_975,
                uncompared=9,
                dropped={"queue_full": 7, "too_large": 3, "deadline": 0},
                circuit="closed",
            )
        ],
        comparing=pb.Comparing(share_bp=10_000, compared=9_975),
        comparisons=[
            pb.ComparisonCounts(
                reference="stable",
                candidate="int8",
                match=9_875,
                mismatch=100,
                error=5,
                skipped=10,
                outputs=[
                    pb.OutputCounts(
                        output="logits", match=9_875, mismatch=100, max_abs_diff=0.03125
                    ),
                    pb.OutputCounts(output="label", match=9_975),
                ],
            )
        ],
        proxies=[
            pb.ProxyStatus(
                proxy_id="p-4711", revision=7, connected_since_ns=AT_NS, reach=a_reach()
            ),
            pb.ProxyStatus(
                proxy_id="p-4712", revision=6, connected_since_ns=AT_NS, refused="no such backend"
            ),
        ],
        reports=pb.ReportCounts(offered=10_000, received=9_998, dropped={"buffer_full": 2}),
        turned_away={"in_flight": 12, "bytes": 0},
    )


def a_judged_status(verdict: str = "fail") -> pb.RouteStatus:
    """Return a status in which int8 was judged."""
    status = a_status()
    status.verdict = verdict
    del status.comparisons[:]
    status.comparisons.append(a_judgement(verdict))
    return status


def made_well(status: pb.RouteStatus) -> pb.RouteStatus:
    """Return the status once both proxies serve by its table, and call every address."""
    for proxy in status.proxies:
        proxy.revision, proxy.refused = status.revision, ""
        for each in proxy.reach:
            each.available = each.addresses
            del each.troubles[:]
    return status


def a_judgement(verdict: str = "fail") -> pb.ComparisonCounts:
    """Return what was found of int8, with noise and twelve segments."""
    return pb.ComparisonCounts(
        reference="stable",
        candidate="int8",
        match=9_875,
        mismatch=100,
        error=5,
        skipped=10,
        kinds={"value": 90, "label": 10},
        rows=19_950,
        rows_mismatch=150,
        mismatch_rate=pb.Rate(value=0.031, low=0.019, high=0.0481, requests=9_975),
        noise_pairs=400,
        outputs=[
            pb.OutputCounts(
                output="scores",
                match=9_875,
                mismatch=100,
                rule="close",
                max_abs_diff=0.03125,
                raw=pb.Rate(value=0.031, low=0.019, high=0.048),
                noise=pb.Rate(value=0.03),
                beyond_noise=pb.Rate(value=0.001, low=-0.005, high=0.009),
            ),
            pb.OutputCounts(output="label", match=9_975, rule="argmax"),
        ],
        segments=[a_segment(each) for each in range(12)],
        trial=a_trial(),
        verdict=a_verdict(verdict),
    )


def a_trial() -> pb.Trial:
    return pb.Trial(
        number=3,
        reference_version="1",
        candidate_version="2",
        began_ns=AT_NS,
        why="candidate version",
    )


def a_verdict(verdict: str) -> pb.Verdict:
    reasons = {"fail": "3.1 % of 9,975 requests mismatch, allowed 1 %", "pass": "enough matched"}
    finding = verdict if verdict in reasons else "open"
    reason = reasons.get(verdict, "not enough evidence yet")
    return pb.Verdict(
        verdict=verdict,
        reason=reason,
        at_ns=AT_NS,
        trace_id=bytes.fromhex("0af7651916cd43dd8448eb211c80319c"),
        gates=[
            pb.Gate(
                gate="mismatch",
                finding=finding,
                reason=reason,
                log_fail=-2.0,
                log_pass=1.9,
                log_needed=3.0,
                observed=9_975,
                at_ns=0 if finding == "open" else AT_NS,
            ),
            pb.Gate(
                gate="errors",
                finding="open",
                reason="5 of 9,980 failed",
                log_fail=0.75,
                log_needed=3.0,
                observed=5,
            ),
            pb.Gate(gate="split", finding="open", log_needed=4.6, observed=12_000),
        ],
    )


def a_segment(number: int) -> pb.Segment:
    """Return the segment of a tenant, the worse the greater its number."""
    return pb.Segment(
        name=f"tenant-{number}",
        match=100,
        mismatch=number,
        error=1,
        mismatch_rate=pb.Rate(value=number / 100, low=number / 200, high=number / 50),
        verdict="fail" if number > 10 else "inconclusive",
    )


def a_list_of_trials() -> pb.ListTrialsResponse:
    ended = a_judgement("pass")
    ended.trial.number, ended.trial.ended_ns, ended.trial.why = 2, AT_NS, "rules"
    return pb.ListTrialsResponse(trials=[a_judgement(), ended])


def a_reach() -> list[pb.VariantReach]:
    return [
        pb.VariantReach(route="digits", variant="stable", addresses=2, available=2),
        pb.VariantReach(
            route="digits",
            variant="canary",
            addresses=2,
            available=1,
            troubles=["127.0.0.1:8001 does not answer"],
        ),
    ]


def a_change(*, stable: int, canary: int) -> pb.ChangeResponse:
    return pb.ChangeResponse(
        route=a_route(stable=stable, canary=canary, shadow=2_500),
        revision=8,
        proxies_current=2,
        proxies=2,
    )


def a_history() -> pb.GetHistoryResponse:
    return pb.GetHistoryResponse(
        changes=[
            pb.Change(
                revision=8,
                route="digits",
                at_ns=AT_NS,
                actor="ada@tower",
                reason="bake [1h] done",
                action="weights",
                before=_split(stable=10_000, canary=0),
                after=_split(stable=9_000, canary=1_000),
            ),
            pb.Change(
                revision=7, route="digits", action="shadow", after=pb.Split(shadows_bp={"int8": 50})
            ),
        ]
    )


def _split(**weights_bp: int) -> pb.Split:
    return pb.Split(weights_bp=weights_bp)


REFERENCE = np.arange(10, dtype=np.float32).reshape(1, 10) / 8
CANDIDATE = np.where(np.arange(10) == 3, 2.5, REFERENCE).astype(np.float32)


def a_mismatch(*, bodies: bool = False) -> pb.Mismatch:
    mismatch = pb.Mismatch(
        id="m-17",
        at_ns=AT_NS,
        route="digits",
        reference="stable",
        candidate="int8",
        trace_id=bytes.fromhex("0af7651916cd43dd8448eb211c80319c"),
        differences=[
            pb.Difference(
                output="logits",
                kind="value",
                index=[0, 3],
                expected="0.375",
                actual="2.5",
                max_abs_diff=2.125,
                differing=1,
                elements=10,
            )
        ],
    )
    if bodies:
        mismatch.request = request_body(np.zeros((1, 64), np.float32))
        mismatch.reference_response = response_body(REFERENCE)
        mismatch.candidate_response = response_body(CANDIDATE)
    return mismatch


def request_body(pixels: Any) -> bytes:
    request = inference_pb2.ModelInferRequest(model_name="digits")
    encode_inputs(request, [Tensor("pixels", "FP32", pixels)])
    return request.SerializeToString()


def response_body(logits: Any, datatype: str = "FP32", *, name: str = "logits") -> bytes:
    response = inference_pb2.ModelInferResponse(model_name="digits")
    encode_outputs(response, [Tensor(name, datatype, logits)], raw=True)
    return response.SerializeToString()
