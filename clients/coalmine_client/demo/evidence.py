"""What the router has counted, asked of its control API."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Self

import grpc

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine_client.demo.account import ALL_BP, OutputRow, Pair, Phase, Tally
from coalmine_client.demo.failure import StepFailed

LABEL: Final = "label"
SETTLE_S: Final = 20.0
_INTERVAL_MS: Final = 200


class Control:
    """The control API, for one route. Raises StepFailed."""

    def __init__(self, address: str, route: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = RouteControlStub(self._channel)
        self._route = route

    async def status(self) -> pb.RouteStatus:
        """Return what the router knows now."""
        with _told():
            return await self._stub.GetRoute(pb.GetRouteRequest(route=self._route))

    async def when(self, settled: Callable[[pb.RouteStatus], bool]) -> pb.RouteStatus:
        """Return the first status that is `settled`; after SETTLE_S, the last there was."""
        asked = pb.WatchRouteRequest(route=self._route, interval_ms=_INTERVAL_MS)
        status = await self.status()
        with _told(), contextlib.suppress(TimeoutError):
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
def _told() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise StepFailed(f"control API: {error.details()} ({error.code().name})") from None


# ---------------------------------------------------------------- reading a status (pure)


def phase(status: pb.RouteStatus) -> Phase:
    """Return the weights and shadows of a status, and the revision they came with."""
    return Phase(
        revision=status.revision,
        weights_bp={each.name: each.weight_bp for each in status.route.variants if each.weight_bp},
        shadows=frozenset(each.variant for each in status.route.shadows if each.share_bp == ALL_BP),
    )


def tallies(status: pb.RouteStatus) -> dict[Pair, Tally]:
    """Return by (reference, candidate) how many answers were compared, and had another label."""
    return {
        (each.reference, each.candidate): Tally(
            compared=each.match + each.mismatch,
            other_label=sum(out.mismatch for out in each.outputs if out.output == LABEL),
        )
        for each in status.comparisons
    }


def output_rows(status: pb.RouteStatus) -> list[OutputRow]:
    """Return how often each output differed, by candidate and reference."""
    return [
        OutputRow(
            each.candidate, each.reference, out.output, out.match + out.mismatch, out.mismatch
        )
        for each in sorted(status.comparisons, key=lambda each: (each.candidate, each.reference))
        for out in each.outputs
    ]


def is_settled(status: pb.RouteStatus, expected: dict[Pair, Tally]) -> bool:
    """Return whether every copy that was to be compared has been, or was given up."""
    counted = tallies(status)
    lost = uncompared(status)
    return all(
        counted.get(pair, Tally(0, 0)).compared + lost >= tally.compared
        for pair, tally in expected.items()
    )


def uncompared(status: pb.RouteStatus) -> int:
    """Return how many copies were given up, failed or could not be compared."""
    dropped = sum(sum(each.dropped.values()) for each in status.shadows)
    return dropped + sum(each.error + each.skipped for each in status.comparisons)
