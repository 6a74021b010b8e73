"""Waiting for a verdict, and its exit code for scripts."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from rich.console import Console
from rich.live import Live

from coalmine.command_line.failure import Failure, WrongUsage
from coalmine.control.v1 import control_pb2 as pb
from coalmine.shown_value import one_line
from coalmine_client.cli.console import DOUBTFUL, Cell, group, line
from coalmine_client.cli.control import ControlClient
from coalmine_client.cli.policy import STABLE
from coalmine_client.cli.route_health import health_of, is_new
from coalmine_client.cli.verdict_view import dated_reason, progress_bar, verdict_word

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub

# A router that was there is asked again, for it may only be starting anew.
_AGAIN_S: Final = 1.0

Tell = Callable[[pb.RouteStatus], None]


class VerdictFailed(Failure):
    """The router's verdict is FAIL. This is the answer, not an error in getting it."""

    exit_code = 3


class NoVerdict(Failure):
    """There was no verdict in time."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict, and a line that says whose and why; of a route or of one candidate."""

    verdict: str
    said: str

    @property
    def is_decided(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.verdict in {"pass", "fail"}

    def check(self) -> None:
        """Raise VerdictFailed where the verdict is FAIL."""
        if self.verdict == "fail":
            raise VerdictFailed(one_line(f"the verdict is FAIL: {self.said}"))


def ruling_on(status: pb.RouteStatus, candidate: str) -> Ruling:
    """Return the verdict on a candidate, or on the route where that is "".

    Raises WrongUsage where the route has no such variant.
    """
    names = [each.name for each in status.route.variants]
    if candidate and candidate not in names:
        raise WrongUsage(
            f"route '{status.route.name}' has no variant '{candidate}', but {', '.join(names)}"
        )
    found = list(_comparisons_of(status, candidate))
    verdict = _worst([each.verdict.verdict for each in found]) if candidate else status.verdict
    said = [
        f"{each.candidate} against {each.reference}: {dated_reason(each.verdict)}"
        for each in found
        if each.verdict.verdict == verdict
    ]
    return Ruling(verdict, "; ".join(said) or "nothing was compared yet")


def _comparisons_of(status: pb.RouteStatus, candidate: str) -> Iterator[pb.ComparisonCounts]:
    """Yield what was found of a candidate, or of all; beside a canary, the canary may be wrong."""
    for each in status.comparisons:
        if each.reference == STABLE and candidate in {"", each.candidate}:
            yield each


def _worst(verdicts: list[str]) -> str:
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts and set(verdicts) == {"pass"} else "inconclusive"


def wait_for_verdict(
    control: ControlClient, route: str, candidate: str, timeout_s: float
) -> tuple[pb.RouteStatus, Ruling]:
    """Return the first status with a verdict. A terminal shows the progress meanwhile.

    If there is none in time, the last status comes back, undecided. Raises Failure.
    """
    with _progress_display(candidate) as tell:
        return control.ask(
            lambda router: _watch_until_verdict(router, route, candidate, timeout_s, tell),
            is_patient=True,
        )


async def _watch_until_verdict(
    router: "RouteControlAsyncStub", route: str, candidate: str, timeout_s: float, tell: Tell
) -> tuple[pb.RouteStatus, Ruling]:
    found: tuple[pb.RouteStatus, Ruling] | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    async for status in router.WatchRoute(pb.WatchRouteRequest(route=route)):
                        tell(status)
                        found = status, ruling_on(status, candidate)
                        if found[1].is_decided and _is_health_known(status):
                            return found
                except grpc.aio.AioRpcError as error:
                    if found is None or error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                await asyncio.sleep(_AGAIN_S)
    if found is None:
        raise Failure(f"the router did not answer within {timeout_s:g} s")
    return found


def _is_health_known(status: pb.RouteStatus) -> bool:
    """Return whether the health is meaningful: that of a router just started still improves."""
    return not health_of(status).reasons or not is_new(status, status.counting_since_ns)


@contextlib.contextmanager
def _progress_display(candidate: str) -> Iterator[Tell]:
    """Yield the function that shows the progress of the evidence on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _status: None
        return
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda status: live.update(
            group([line(*each) for each in progress_lines(status, candidate)]), refresh=True
        )


def progress_lines(status: pb.RouteStatus, candidate: str) -> list[list[Cell]]:
    """Return what is wrong, and a line for each candidate that is waited for: its open gates."""
    found, health = list(_comparisons_of(status, candidate)), health_of(status)
    wrong: list[list[Cell]] = [[(health.line, DOUBTFUL)]] if health.reasons else []
    if not found:
        return [*wrong, ["waiting for the first comparison"]]
    return wrong + [
        [verdict_word(each.verdict.verdict), f"  {each.candidate}  ", _open_gates(each)]
        for each in found
    ]


def _open_gates(found: pb.ComparisonCounts) -> str:
    gates = [f"{each.gate} {way}" for each in found.verdict.gates if (way := progress_bar(each))]
    return " · ".join(gates) or found.verdict.reason
