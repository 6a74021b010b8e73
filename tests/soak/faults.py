"""What is done to a running router and to those around it, one at a time, and put right again."""

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.doubles.waiting import until
from tests.soak.programs import Server
from tests.soak.stage import CANARY_BP, STABLE_HOSTS, STABLE_NAME, WORKERS, Stage
from tests.soak.tally import Kill

_WEIGHT_CHANGES = 100
_CONNECTIONS_A_SECOND = 100
_CONNECTIONS_MAX = 3_000
_ROLL_S = 90.0
_LOOKED_UP_S = 20.0


@dataclass(frozen=True)
class Fault:
    """Its name; what does the harm for so many seconds, and puts it right.

    `harm` returns which callers' connections broke, where it killed what they are connected to:
    calls in flight on these may fail. Where it returns None, no call may.
    """

    name: str
    title: str
    harm: Callable[[Stage, float], Kill | None]


def nothing(stage: Stage, harm_s: float) -> None:
    time.sleep(harm_s)


# ---------------------------------------------------------------- backends


def kill_canary(stage: Stage, harm_s: float) -> None:
    _killed(stage.canary, harm_s)


def stop_canary(stage: Stage, harm_s: float) -> None:
    stage.canary.send(signal.SIGSTOP)
    try:
        time.sleep(harm_s)
    finally:
        stage.canary.send(signal.SIGCONT)


def kill_shadow(stage: Stage, harm_s: float) -> None:
    _killed(stage.shadow, harm_s)


def kill_stable(stage: Stage, harm_s: float) -> None:
    """Kill one of stable's two servers; the router tries the other one."""
    _killed(stage.stable[0], harm_s)


def change_dns(stage: Stage, harm_s: float) -> None:
    """Take one of stable's addresses out of its name, then the other instead."""
    first, second = STABLE_HOSTS
    for addresses in ([first], [second]):
        over_s = time.monotonic() + harm_s / 2
        stage.dns.answer(STABLE_NAME, addresses)
        until(lambda: stage.stable_addresses() == {1}, _LOOKED_UP_S)
        time.sleep(max(0.0, over_s - time.monotonic()))
    stage.dns.answer(STABLE_NAME, STABLE_HOSTS)


# ---------------------------------------------------------------- the router's own processes


def kill_control(stage: Stage, harm_s: float) -> None:
    victim = stage.control_pid()
    os.kill(victim, signal.SIGKILL)
    time.sleep(harm_s)
    until(lambda: victim not in stage.router.children(), 20)


def stop_control(stage: Stage, harm_s: float) -> None:
    with _stopped(stage.control_pid()):
        time.sleep(harm_s)


def roll(stage: Stage, harm_s: float) -> None:
    """Replace all workers, again and again."""
    over_s = time.monotonic() + harm_s
    while True:
        before = set(stage.workers())
        rolled = stage.log_count("workers_rolled")
        os.kill(stage.router.pid, signal.SIGHUP)
        until(lambda count=rolled: stage.log_count("workers_rolled") > count, _ROLL_S)  # type: ignore[misc]
        after = set(stage.workers())
        assert len(after) == WORKERS, f"{len(after)} workers after a roll"
        assert not before & after, f"of {WORKERS} workers, {len(before & after)} stayed"
        if time.monotonic() > over_s:
            return


def kill_worker(stage: Stage, harm_s: float) -> Kill:
    kill = stage.kill_worker()
    time.sleep(harm_s)
    return kill


# ---------------------------------------------------------------- around it


def black_hole_collector(stage: Stage, harm_s: float) -> None:
    """Let the collector take connections, and never say a word."""
    with _stopped(stage.collector.process.pid):
        time.sleep(harm_s)


def change_weights(stage: Stage, harm_s: float) -> None:
    """Change the canary's weight a hundred times; each change is served by all proxies."""
    rng = random.Random(7)
    for _ in range(_WEIGHT_CHANGES):
        due_s = time.monotonic() + harm_s / _WEIGHT_CHANGES
        said = stage.set_canary(rng.randrange(500, 4_000))
        assert said.proxies_current == WORKERS, f"{said.proxies_current} serve {said.revision}"
        time.sleep(max(0.0, due_s - time.monotonic()))
    stage.set_canary(CANARY_BP)


def flood(stage: Stage, harm_s: float) -> None:
    """Open connections by the thousand: a third stay silent, a third talk nonsense, a third go."""
    host, _, port = stage.data.rpartition(":")
    over_s = time.monotonic() + harm_s
    count = min(_CONNECTIONS_MAX, int(_CONNECTIONS_A_SECOND * harm_s))
    with contextlib.ExitStack() as open_ones:
        for number in range(count):
            caller = socket.create_connection((host, int(port)), timeout=10)
            _behave(caller, number, open_ones)
            # Evenly over half of the time.
            time.sleep(max(0.0, over_s - harm_s * (1 - number / count / 2) - time.monotonic()))
        time.sleep(max(0.0, over_s - time.monotonic()))


def _behave(caller: socket.socket, number: int, open_ones: contextlib.ExitStack) -> None:
    if number % 3 == 0:
        caller.close()
        return
    open_ones.callback(caller.close)
    if number % 3 == 1:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")


FAULTS = (
    Fault("canary-killed", "canary backend, kill -9", kill_canary),
    Fault("canary-stopped", "canary backend, SIGSTOP", stop_canary),
    Fault("shadow-killed", "shadow backend, kill -9", kill_shadow),
    Fault("control-killed", "control process, kill -9", kill_control),
    Fault("control-stopped", "control process, SIGSTOP", stop_control),
    Fault("collector", "collector black-holed", black_hole_collector),
    Fault("roll", "rolling restart of the workers", roll),
    Fault("dns", "DNS answer changed", change_dns),
    Fault("weights", f"{_WEIGHT_CHANGES} weight changes", change_weights),
    Fault("flood", "connection flood", flood),
    Fault("stable-killed", "one of stable's two, kill -9", kill_stable),
    Fault("worker-killed", "one proxy worker, kill -9", kill_worker),
)


# ---------------------------------------------------------------- harm


def _killed(server: Server, harm_s: float) -> None:
    """Kill it, and start it again once the time is over."""
    server.kill()
    time.sleep(harm_s)
    server.begin()
    server.await_ready()


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
