"""Verdicts on a canary of several pods behind one name: each is compared, and the odd one named."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.doubles.dns_server import DnsServer
from tests.doubles.inference_server import FakeInference, Outputs, serving, sums
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import caller_of, judged_canary, router
from tests.doubles.waiting import until

NAME = "canary.test"
HOSTS = ("127.0.0.31", "127.0.0.32", "127.0.0.33")
BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")


def off_by_one(arrays: Mapping[str, Any]) -> Outputs:
    datatype, right = sums(arrays)["sum"]
    return {"sum": (datatype, right + np.float32(1))}


@dataclass
class Pods:
    """A canary's pods by address, beside stable: a router that runs, and a caller."""

    by_address: Mapping[str, FakeInference]
    running: Started
    folder: Path
    infer: Any

    def ask(self, count: int) -> None:
        for _ in range(count):
            self.infer()

    def said(self, *verb: str) -> str:
        at = {"COALMINE_CONTROL": self.running.address("control")}
        return ran(*verb, folder=self.folder, environment=at).stdout

    def found(self) -> Any:
        """Return what was found of canary, as JSON; of nothing compared yet, None."""
        comparisons = json.loads(self.said("status", "digits", "--json"))["comparisons"]
        return comparisons[0] if comparisons else None

    def reason(self) -> str:
        found = self.found()
        return str(found["verdict"]["reason"]) if found else ""


@contextmanager
def serving_pods() -> Iterator[dict[str, FakeInference]]:
    """Run a pod at each of the hosts, all at one port."""
    pods: dict[str, FakeInference] = {}
    with ExitStack() as stack:
        port = "0"
        for host in HOSTS:
            pod = FakeInference()
            address = stack.enter_context(serving(pod, f"{host}:{port}"))
            port = address.rpartition(":")[2]
            pods[address] = pod
        yield pods


@pytest.fixture
def pods(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pods]:
    """A router whose route allows 5 % mismatches, or what a test says."""
    allowed = getattr(request, "param", 0.05)
    with (
        DnsServer() as dns,
        serving(FakeInference()) as stable,
        serving_pods() as by_address,
    ):
        dns.answer(NAME, HOSTS)
        port = next(iter(by_address)).rpartition(":")[2]
        file = judged_canary(tmp_path, stable, dns.target(NAME, int(port)), allowed)
        with router(file) as running, caller_of(running) as caller:
            yield Pods(by_address, running, tmp_path, caller.infer)


@pytest.mark.timeout(120)
def test_one_wrong_pod_of_three_fails_the_canary_and_is_named(pods: Pods) -> None:
    wrong = list(pods.by_address)[1]
    pods.by_address[wrong].model = off_by_one

    def is_named() -> bool:
        pods.ask(20)
        return "disagree" in pods.reason()

    until(is_named, 60)
    found = pods.found()
    assert found["verdict"]["verdict"] == "fail"
    assert f"its addresses disagree: {wrong} is wrong in " in found["verdict"]["reason"]
    rows = {each["address"]: each for each in found["candidate_addresses"]}
    assert rows.keys() == pods.by_address.keys()
    assert {name for name, each in rows.items() if each["stands_out"]} == {wrong}
    assert rows[wrong]["mismatch"] == rows[wrong]["compared"] > 0
    assert all(each["ready"] and each["compared"] for each in rows.values())
    assert all(not each["mismatch"] for name, each in rows.items() if name != wrong)

    text = pods.said("status", "digits", "--all")
    assert "addresses compared: canary 3 of 3 ready · stable 1 of 1 ready" in text
    assert f"its addresses disagree: {wrong} is wrong in " in " ".join(text.split())
    kept = json.loads(pods.said("mismatches", "digits", "--json"))["mismatches"]
    assert {each["candidate_address"] for each in kept} == {wrong}


# What a pod leaves unanswered counts against a PASS: here, a third of the copies may.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("pods", [0.5], indirect=True)
def test_no_pass_is_given_while_a_ready_pod_was_not_compared(pods: Pods) -> None:
    unseen = list(pods.by_address)[2]
    pods.by_address[unseen].errors = repeat(BUSY)

    def waits() -> bool:
        pods.ask(20)
        return pods.reason().startswith("not decided yet: 1 of 3 ready addresses not compared")

    until(waits, 60)
    found = pods.found()
    assert found["verdict"]["verdict"] == "inconclusive"
    assert found["verdict"]["reason"].endswith(f"within 10m of traffic: {unseen}")
    assert "canary 2 of 3 ready" in pods.said("status", "digits", "--all")

    pods.by_address[unseen].errors = iter(())

    def has_passed() -> bool:
        pods.ask(20)
        return bool(pods.found()["verdict"]["verdict"] == "pass")

    until(has_passed, 60)
    assert pods.reason().endswith("all 3 ready addresses were compared")
