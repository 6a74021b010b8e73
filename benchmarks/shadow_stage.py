"""A router whose shadows are switched at run time: one answers, one hangs, one dies."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks import contestants
from benchmarks.started import kinds, line, python
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from coalmine.process.addresses import reserve

ROUTE = "bench"
NOBODY = ""
LIVE, HANGING, DEAD = "live", "hanging", "dead"

# The longest that a copy waits for its turn, and then for its answer.
_SETTLED_S = 40.0


@dataclass(frozen=True)
class Copied:
    """What became of the copies drawn for a shadow."""

    offered: int
    compared: int
    dropped: int

    def since(self, before: "Copied") -> "Copied":
        return Copied(
            self.offered - before.offered,
            self.compared - before.compared,
            self.dropped - before.dropped,
        )


class Shadow:
    """A shadow's process, which begins again at the same address."""

    def __init__(self, response: bytes) -> None:
        with reserve("127.0.0.1:0", shared=False) as held:
            self.address = f"127.0.0.1:{held.getsockname()[1]}"
        self._response = response
        self._running = contextlib.ExitStack()

    def begin(self) -> None:
        response = [self._response.hex()] if self._response else []
        command = ("benchmarks.shadow_backend", self.address, *response)
        line(self._running.enter_context(python(*command)))

    def end(self) -> None:
        self._running.close()


class Stage:
    """The router, and its shadows; `parts` are those whose CPU is counted."""

    def __init__(
        self,
        data: str,
        parts: Mapping[str, Sequence[int]],
        control: control_pb2_grpc.RouteControlStub,
        mortal: Shadow,
    ) -> None:
        self.data = data
        self.parts = parts
        self._control = control
        self._mortal = mortal

    @contextlib.contextmanager
    def shadowed_by(self, variant: str) -> Iterator[None]:
        """Copy every request to a shadow; at the end to none, once all copies came to an end."""
        if variant == NOBODY:
            yield
            return
        self._set(variant, 10_000)
        if variant == DEAD:
            # It must be ready to become a shadow.
            self._mortal.end()
        try:
            yield
        finally:
            self._set(variant, 0)
            self._settle()
            if variant == DEAD:
                self._mortal.begin()

    def copied(self) -> Copied:
        """Return what became of all copies so far."""
        found = self._shadows()
        return Copied(
            sum(each.offered for each in found),
            sum(each.compared for each in found),
            sum(sum(each.dropped.values()) for each in found),
        )

    def _set(self, variant: str, share_bp: int) -> None:
        asked = pb.SetShadowRequest(
            route=ROUTE, variant=variant, share_bp=share_bp, reason="bench", actor="bench"
        )
        # A backend that has just begun again may be waited for.
        give_up = time.monotonic() + 20
        while True:
            try:
                self._control.SetShadow(asked, timeout=10)
            except grpc.RpcError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.2)
            else:
                return

    def _settle(self) -> None:
        give_up = time.monotonic() + _SETTLED_S
        while any(each.waiting or each.under_way for each in self._shadows()):
            if time.monotonic() > give_up:
                raise RuntimeError("copies are still on their way")
            time.sleep(0.1)

    def _shadows(self) -> Sequence[pb.ShadowCounts]:
        return self._control.GetRoute(pb.GetRouteRequest(route=ROUTE), timeout=10).shadows


@contextlib.contextmanager
def stage(response: bytes, folder: Path) -> Iterator[Stage]:
    """Yield a router of one proxy, with shadows of each kind, none of them switched on."""
    shadows = {LIVE: Shadow(response), HANGING: Shadow(b""), DEAD: Shadow(response)}
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(contestants.backend(response))
        for each in shadows.values():
            stack.callback(each.end)
            each.begin()
        config = folder / "shadowed.yaml"
        config.write_text(_written(address, shadows, folder / "shadowed-state"))
        environment = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
        arguments = ("run", "--config", str(config), "--workers", "1")
        process = stack.enter_context(
            python("coalmine_router", *arguments, environment=environment)
        )
        said = json.loads(line(process))
        channel = stack.enter_context(grpc.insecure_channel(said["control"]))
        control = control_pb2_grpc.RouteControlStub(channel)
        yield Stage(said["data"], kinds(process.pid), control, shadows[DEAD])


def _written(stable: str, shadows: Mapping[str, Shadow], state: Path) -> str:
    addresses = {"stable": stable, **{name: each.address for name, each in shadows.items()}}
    return json.dumps(
        {
            "listen": "127.0.0.1:0",
            "control": {"listen": "127.0.0.1:0", "state": str(state)},
            "http": "127.0.0.1:0",
            "backends": {name: {"targets": [each]} for name, each in addresses.items()},
            "routes": [
                {
                    "name": ROUTE,
                    "match": {"model": "bench"},
                    "variants": {name: {"backend": name} for name in addresses},
                }
            ],
        }
    )
