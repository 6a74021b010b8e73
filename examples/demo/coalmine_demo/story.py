"""The demo from training to claims, in the order in which it happens."""

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.client import AsyncClient
from coalmine_demo import evidence, models
from coalmine_demo.account import Phase, expected_tallies
from coalmine_demo.claims import BROKEN, DemoOutcome, failed_candidates
from coalmine_demo.demo_processes import DemoProcesses
from coalmine_demo.demo_report import Steps
from coalmine_demo.demo_traces import Traces, read_traces
from coalmine_demo.evidence import RouterControl
from coalmine_demo.heldout import IMAGES, HeldOut
from coalmine_demo.ledger import Ledger
from coalmine_demo.place import Place, router_config
from coalmine_demo.traffic import MODEL, Traffic

RATE_PER_S: Final = 120.0
CANARY: Final = "canary"
SERVER: Final = "server"
ROUTER: Final = "router"


class Learnt(NamedTuple):
    """What the router knows: a status, all trials, and the id of a mismatch of the broken canary.

    The id is empty if none is kept.
    """

    status: pb.RouteStatus
    trials: Sequence[pb.ComparisonCounts]
    example: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What the demo observed, what the router knew, and the traces."""

    outcome: DemoOutcome
    learnt: Learnt
    traces: Traces


class Story:
    """The demo in its order. It needs a folder, the processes, and a place to show steps."""

    def __init__(self, place: Place, processes: DemoProcesses, steps: Steps) -> None:
        self._place = place
        self._processes = processes
        self._steps = steps
        self._ledger = Ledger()
        self._phases: list[Phase] = []

    async def play(self, seed: int) -> Ending:
        """Train, serve, shift weight, count; return the result. Raises StepFailed."""
        heldout = await self._prepare_models(seed)
        addresses = await self._start_services()
        refusals, learnt = await self._send_and_shift(heldout, addresses)
        codes = await self._stop_services()
        with self._steps.step("reading the trace files"):
            found = read_traces(self._place.trace_files())
        outcome = DemoOutcome(
            heldout=heldout,
            phases=self._phases,
            exchanges=self._ledger.exchanges,
            counted=evidence.counted_tallies(learnt.trials),
            uncompared=evidence.uncompared_copies(learnt.status, learnt.trials),
            refused=refusals,
            judged=evidence.judged_shares(learnt.status),
            traced=len(found.whole_traces()),
            exit_codes=codes,
        )
        return Ending(outcome, learnt, found)

    # ------------------------------------------------------------ before the traffic

    async def _prepare_models(self, seed: int) -> HeldOut:
        place = self._place
        with self._steps.step("training stable, canary, int8 and a broken canary on 1,197 digits"):
            heldout = await models.train_models(self._processes, place.training, seed)
        with self._steps.step("packaging the models into a repository: coalmine package"):
            await models.package_models(self._processes, place.training, place.repository)
        return heldout

    async def _start_services(self) -> Mapping[str, str]:
        """Start server and router; return the router's addresses."""
        place = self._place
        with self._steps.step("starting the inference server: coalmine server run"):
            server = await self._processes.start(
                SERVER,
                *("server", "run", "--model-repository", str(place.repository)),
                *("--listen", place.address_at(), "--http", place.address_at()),
                *("--traces", str(place.server_traces)),
            )
        with self._steps.step("starting the canary router: coalmine router run"):
            config = router_config(server["grpc"], place.state, place.address_at())
            place.router_config.write_text(config)
            router = await self._processes.start(
                ROUTER, "router", "run", "--config", str(place.router_config)
            )
        self._processes.set_environment(COALMINE_CONTROL=router["control"])
        return router

    # ------------------------------------------------------------ the traffic

    async def _send_and_shift(
        self, heldout: HeldOut, addresses: Mapping[str, str]
    ) -> tuple[set[str], Learnt]:
        """Send traffic and shift the weights meanwhile; return the refused, and the evidence."""
        async with AsyncExitStack() as stack:
            control = await stack.enter_async_context(RouterControl(addresses["control"], MODEL))
            client = await stack.enter_async_context(AsyncClient(addresses["data"]))
            traffic = Traffic(
                client,
                heldout.pixels,
                self._ledger.record,
                rate_per_s=RATE_PER_S,
                clock=SystemClock(),
            )
            enough = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.send_until(enough))
                refusals = await self._shift_weights(heldout, control)
                enough.set()
            status = await self._wait_until_compared(heldout, control)
            example = await control.get_mismatch_id(BROKEN)
            return refusals, Learnt(status, await control.get_trials(), example)

    async def _shift_weights(self, heldout: HeldOut, control: RouterControl) -> set[str]:
        self._phases.append(evidence.phase_of(await control.get_status()))
        with self._steps.step(f"{IMAGES} held-out digits to stable, a copy of each to the others"):
            await self._ledger.wait_for(self._phases[0].revision, IMAGES)
            status = await self._wait_until_compared(heldout, control)
        judged = evidence.judged_shares(status)
        refusals = failed_candidates(judged)
        words = {each.candidate: each.verdict.upper() for each in judged}
        for candidate in sorted(refusals):
            await self._show_verdict(candidate)
            await self._change(control, "shadow", f"{candidate}=0%", "the verdict is FAIL")
        why = f"the verdict is {words.get(CANARY, 'not there')}"
        await self._change(control, "shadow", f"{CANARY}=0%", why)
        for percent in (10, 50):
            await self._change(control, "weights", f"{CANARY}={percent}", f"step to {percent} %")
            with self._steps.step(f"{IMAGES} digits at canary {percent} %"):
                await self._ledger.wait_for(self._phases[-1].revision, IMAGES)
        return refusals

    async def _show_verdict(self, candidate: str) -> None:
        """Ask for a verdict by the command line; show the verdict's line, and the exit code."""
        command = ("status", MODEL, "--candidate", candidate)
        code, output = await self._processes.run(*command)
        told = [line for line in output.splitlines() if f"  {candidate} against " in line]
        line = shlex.join(("coalmine", *command))
        self._steps.show_command(f"{line}; echo $?", "\n".join([*told, str(code)]))

    async def _change(self, control: RouterControl, verb: str, share: str, reason: str) -> None:
        """Change the route by the command line, while requests are in flight."""
        command = (verb, MODEL, share, "--reason", reason)
        output = await self._processes.call(*command)
        self._steps.show_command(shlex.join(("coalmine", *command)), output)
        self._phases.append(evidence.phase_of(await control.get_status()))

    async def _wait_until_compared(
        self, heldout: HeldOut, control: RouterControl
    ) -> pb.RouteStatus:
        """Return the counts once all answers so far have been compared."""
        expected = expected_tallies(self._ledger.exchanges, self._phases, heldout)
        return await control.wait_until(lambda status: evidence.is_settled(status, expected))

    # ------------------------------------------------------------ after the traffic

    async def _stop_services(self) -> dict[str, int]:
        with self._steps.step("stopping router and server"):
            return {name: await self._processes.stop(name) for name in (ROUTER, SERVER)}
