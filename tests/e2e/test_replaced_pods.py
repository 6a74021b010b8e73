"""Pods of a canary behind one name, replaced under load: what becomes of copies and changes."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import yaml

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from tests.doubles.backend_process import BackendProcess, backend_process
from tests.doubles.dns_server import DnsServer
from tests.doubles.router_setup import (
    REQUEST,
    Caller,
    caller_of,
    configuration,
    control_of,
    router,
    set_weights,
)
from tests.doubles.split_route import closed_port
from tests.doubles.waiting import until

PIN = (("x-coalmine-variant", "canary"),)
# A copy's share of what is in flight when a pod is killed; each queue has so many calls at most.
AT_ONCE_MAX = 32


@dataclass
class Pods:
    """The pods of a canary, by IP address; DNS knows those that are there."""

    dns: DnsServer
    port: int
    stack: ExitStack
    running: dict[str, BackendProcess] = field(default_factory=dict)

    def start(self, ip: str) -> None:
        pod = self.stack.enter_context(backend_process(f"{ip}:{self.port}"))
        self.running[ip] = pod
        self._tell()

    def leave(self, ip: str, how: signal.Signals) -> None:
        """Take a pod out of DNS, and end it, as a cluster does both at about the same time."""
        pod = self.running.pop(ip)
        self._tell()
        pod.process.send_signal(how)
        pod.process.wait(20)

    def _tell(self) -> None:
        self.dns.answer("canary.test", list(self.running))


def configured(folder: Path, stable: str, canary: str) -> Path:
    variants = {"stable": {"backend": "blue"}, "canary": {"backend": "green"}}
    route = {"variants": variants, "shadows": {"canary": 100}, "fallback": True}
    file = configuration(folder, stable, **route)
    text = yaml.safe_load(file.read_text())
    text["backends"]["green"] = {"targets": [canary]}
    file.write_text(yaml.safe_dump(text))
    return file


@dataclass
class Scene:
    """A router with stable and the pods of its canary."""

    pods: Pods
    control: RouteControlStub
    caller: Caller

    def copies(self) -> pb.ShadowCounts:
        status = self.control.GetRoute(pb.GetRouteRequest(route="digits"), timeout=10)
        return next(iter(status.shadows), pb.ShadowCounts())

    def ended(self, offered_min: int) -> bool:
        of = self.copies()
        return of.offered > offered_min and of.offered == of.sent + sum(of.dropped.values())


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        dns, stable = stack.enter_context(DnsServer()), stack.enter_context(backend_process())
        port = int(closed_port().rpartition(":")[2])
        pods = Pods(dns, port, stack)
        for number in (11, 12, 13):
            pods.start(f"127.0.0.{number}")
        file = configured(folder, stable.address, dns.target("canary.test", port))
        running = stack.enter_context(router(file))
        control = stack.enter_context(control_of(running))
        yield Scene(pods, control, stack.enter_context(caller_of(running)))


@contextmanager
def repeated(act: Callable[[], object], pause_s: float) -> Iterator[None]:
    """Do it again and again beside the block; what it raises, the block's end does."""
    stop, wrong = threading.Event(), list[Exception]()

    def run() -> None:
        while not stop.wait(pause_s):
            try:
                act()
            except Exception as error:  # noqa: BLE001 - told at the end
                wrong.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not wrong, wrong[0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_copies_outlive_the_replacement_of_each_pod(how: signal.Signals, tmp_path: Path) -> None:
    calls: list[int] = []
    weights = [1, 2]

    with scene(tmp_path) as made:

        def call() -> None:
            made.caller.infer(REQUEST)
            calls.append(1)

        def change() -> None:
            weights.reverse()
            set_weights(made.control, canary=weights[0])

        with repeated(call, 0.005), repeated(change, 0.3):
            until(lambda: made.copies().answered > 50, 20)
            for number in (11, 12, 13):
                made.pods.start(f"127.0.0.{number + 10}")
                made.pods.leave(f"127.0.0.{number}", how)
                time.sleep(2.0)  # the next pod isn't replaced before this one serves
        # What canary answers itself, 1 or 2 %, is not copied to it.
        until(lambda: made.ended(len(calls) * 9 // 10), 20)
        copies = made.copies()

    assert copies.answered > 500
    assert dict(copies.dropped) == {}
    killed = AT_ONCE_MAX * 3 if how is signal.SIGKILL else 0
    assert copies.failed + copies.timed_out <= killed


@pytest.mark.timeout(120)
def test_weights_follow_within_a_second_once_new_pods_answer_calls(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        until(lambda: answers(made.caller), 20)
        set_weights(made.control, canary=100)
        set_weights(made.control, canary=0)
        for ip in list(made.pods.running):
            made.pods.leave(ip, signal.SIGTERM)
        until(lambda: not answers(made.caller), 20)
        time.sleep(7.0)  # by now all have looked the name up in vain
        made.pods.start("127.0.0.31")
        until(lambda: answers(made.caller), 20)
        began = time.monotonic()
        while refused(made.control):
            assert time.monotonic() - began < 1.0


def answers(caller: Caller) -> bool:
    try:
        caller.infer(REQUEST, metadata=PIN)
    except grpc.RpcError:
        return False
    return True


def refused(control: RouteControlStub) -> bool:
    try:
        set_weights(control, canary=100)
    except grpc.RpcError:
        return True
    return False
