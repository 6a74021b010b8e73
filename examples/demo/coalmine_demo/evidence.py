"""What the router has counted, read from its control API."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

import grpc

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine_demo.account import ALL_BP, JudgedShare, OutputRow, Pair, Phase, TrafficTally
from coalmine_demo.demo_failure import StepFailed

LABEL: Final = "label"
SETTLE_S: Final = 20.0
_INTERVAL_MS: Final = 200
_TRIALS_MAX: Final = 1_000


class RouterControl:
    """The control API, for one route. Raises StepFailed."""

    def __init__(self, address: str, route: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = RouteControlStub(self._channel)
        self._route = route

    async def get_status(self) -> pb.RouteStatus:
        """Return what the router knows now."""
        with _raising_step_failed():
            return await self._stub.GetRoute(pb.GetRouteRequest(route=self._route))

    async def get_trials(self) -> Sequence[pb.ComparisonCounts]:
        """Return all that was compared, trial by trial, the newest first."""
        asked = pb.ListTrialsRequest(route=self._route, limit=_TRIALS_MAX)
        with _raising_step_failed():
            return (await self._stub.ListTrials(asked)).trials

    async def get_mismatch_id(self, candidate: str) -> str:
        """Return the id of a kept mismatch of a candidate's label; empty: there is none."""
        asked = pb.ListMismatchesRequest(
            route=self._route, candidate=candidate, output=LABEL, limit=1
        )
        with _raising_step_failed():
            found = (await self._stub.ListMismatches(asked)).mismatches
        return found[0].id if found else ""

    async def wait_until(self, settled: Callable[[pb.RouteStatus], bool]) -> pb.RouteStatus:
        """Return the first status that is `settled`; after SETTLE_S, the latest one."""
        asked = pb.WatchRouteRequest(route=self._route, interval_ms=_INTERVAL_MS)
        status = await self.get_status()
        with _raising_step_failed(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                async for status in self._stub.WatchRoute(asked):
                    if settled(status):
                        break
        return status

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


@contextlib.contextmanager
def _raising_step_failed() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise StepFailed(f"control API: {error.details()} ({error.code().name})") from None


# ---------------------------------------------------------------- reading what it says (pure)


def phase_of(status: pb.RouteStatus) -> Phase:
    """Return the weights and shadows of a status, and their revision."""
    return Phase(
        revision=status.revision,
        weights_bp={each.name: each.weight_bp for each in status.route.variants if each.weight_bp},
        shadows=frozenset(each.variant for each in status.route.shadows if each.share_bp == ALL_BP),
    )


def counted_tallies(trials: Sequence[pb.ComparisonCounts]) -> dict[Pair, TrafficTally]:
    """Return by (reference, candidate) how many answers were compared, and had another label.

    Of all trials: a status has the counts of the current one alone.
    """
    compared: Counter[Pair] = Counter()
    other: Counter[Pair] = Counter()
    for each in trials:
        pair = each.reference, each.candidate
        compared[pair] += each.match + each.mismatch
        other[pair] += sum(out.mismatch for out in each.outputs if out.output == LABEL)
    return {pair: TrafficTally(count, other[pair]) for pair, count in compared.items()}


def judged_shares(status: pb.RouteStatus) -> list[JudgedShare]:
    """Return the verdict on each pair, as it is now."""
    return [
        JudgedShare(
            each.candidate,
            each.reference,
            each.verdict.verdict,
            each.verdict.reason,
            next((gate.observed for gate in each.verdict.gates if gate.gate == "mismatch"), 0),
        )
        for each in sorted(status.comparisons, key=lambda each: (each.candidate, each.reference))
    ]


def output_rows(trials: Sequence[pb.ComparisonCounts]) -> list[OutputRow]:
    """Return how often each output differed, by candidate and reference, over all trials."""
    compared: Counter[tuple[str, str, str]] = Counter()
    other: Counter[tuple[str, str, str]] = Counter()
    for each in trials:
        for out in each.outputs:
            key = each.candidate, each.reference, out.output
            compared[key] += out.match + out.mismatch
            other[key] += out.mismatch
    return [OutputRow(*key, compared[key], other[key]) for key in sorted(compared, key=_pair_of)]


def _pair_of(key: tuple[str, str, str]) -> tuple[str, str]:
    return key[0], key[1]


def is_settled(status: pb.RouteStatus, expected: dict[Pair, TrafficTally]) -> bool:
    """Return whether every copy has been compared or given up."""
    wanted: Counter[str] = Counter()
    for (_, candidate), found in expected.items():
        wanted[candidate] += found.compared
    ended: Counter[str] = Counter()
    for each in status.shadows:
        ended[each.variant] += each.compared + each.uncompared + sum(each.dropped.values())
    return all(ended[candidate] >= count for candidate, count in wanted.items())


def uncompared_copies(status: pb.RouteStatus, trials: Sequence[pb.ComparisonCounts]) -> int:
    """Return how many copies were given up, failed or could not be compared."""
    lost = sum(each.uncompared + sum(each.dropped.values()) for each in status.shadows)
    return lost + sum(each.error + each.skipped for each in trials)
