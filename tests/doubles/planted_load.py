"""Callers with the requests of tests/doubles/planted.py, in a process of their own.

`python -m tests.doubles.planted_load DATA CONTROL PLAN…` reads lines, each a number of
requests: it makes the next so many, and when all are answered says in one line what became of them.
They never run far ahead of what the router has compared, however slow the machine: what is too much
for a router is no question of this load.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import grpc
import uvloop

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from coalmine.trace_context import TRACEPARENT
from tests.doubles.oip_backend import INFER
from tests.doubles.planted import MODEL, Plan, is_right, traceparent

CALLERS = 32
CONNECTIONS = 4
# Of those drawn for a shadow, how many may wait there to be compared.
AHEAD_MAX = 512
_LOOK_MS = 100


class Pace:
    """Lets callers go on while no more than AHEAD_MAX requests have not been compared."""

    def __init__(self) -> None:
        self._begun = 0
        self._settled = 0
        self._changed = asyncio.Condition()

    async def begin(self) -> None:
        """Return when one more may begin."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._begun - self._settled < AHEAD_MAX)
            self._begun += 1

    async def follow(self, control: "control_pb2_grpc.RouteControlAsyncStub") -> None:
        """Follow what has been settled, until cancelled."""
        asked = pb.WatchRouteRequest(route=MODEL, interval_ms=_LOOK_MS)
        async for status in control.WatchRoute(asked):
            async with self._changed:
                self._settled = sum(map(_settled, status.shadows))
                self._changed.notify_all()


def _settled(shadow: pb.ShadowCounts) -> int:
    return shadow.compared + shadow.uncompared + sum(shadow.dropped.values())


@dataclass
class Ended:
    """What became of calls: how many were right, and how many went wrong, by what it was."""

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def said(self) -> str:
        return json.dumps({"right": self.right, "wrong": dict(self.wrong)})


class Load:
    """Closed-loop callers, who together go through the plan once."""

    def __init__(self, address: str, plan: Plan, pace: Pace) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channels = [
            grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)
        ]
        self._plan = plan
        self._pace = pace
        self._numbers = iter(range(plan.count))

    async def make(self, count: int) -> Ended:
        """Make the next `count` requests of the plan; fewer where it ends."""
        numbers, ended = islice(self._numbers, count), Ended()
        async with asyncio.TaskGroup() as tasks:
            for caller in range(CALLERS):
                tasks.create_task(self._call(self._channels[caller % CONNECTIONS], numbers, ended))
        return ended

    async def _call(self, channel: grpc.aio.Channel, numbers: Iterator[int], ended: Ended) -> None:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{INFER}")
        for number in numbers:
            await self._pace.begin()
            body = self._plan.body(number)
            try:
                answer = await call(
                    body, timeout=20, metadata=((TRACEPARENT, traceparent(number)),)
                )
            except grpc.aio.AioRpcError as error:
                ended.wrong[f"{error.code().name}: {error.details()}"] += 1
            else:
                if is_right(answer, body):
                    ended.right += 1
                else:
                    ended.wrong["another answer"] += 1


async def run(data: str, control: str, plan: Plan) -> None:
    """Make requests as standard input asks for them, until it closes."""
    pace = Pace()
    load = Load(data, plan, pace)
    async with grpc.aio.insecure_channel(control) as channel, asyncio.TaskGroup() as tasks:
        following = tasks.create_task(pace.follow(control_pb2_grpc.RouteControlStub(channel)))
        while asked := await asyncio.to_thread(sys.stdin.readline):
            print((await load.make(int(asked))).said(), flush=True)
        following.cancel()


if __name__ == "__main__":
    data, control, *plan = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(data, control, Plan.of(plan)))
