"""All that a soak runs: servers, a collector, a DNS server and a router, each a real process."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from tests.doubles.dns_server import DnsServer
from tests.doubles.processes import Started, started
from tests.doubles.server_process import written
from tests.soak.connections import broken
from tests.soak.programs import Load, Program, Server, program
from tests.soak.questions import MODEL, VERSIONS
from tests.soak.tally import Kill

WORKERS = 2
STABLE_NAME = "stable.test"
STABLE_HOSTS = ("127.0.0.2", "127.0.0.3")
CANARY_BP = 2_000

_GRACE_S = 10
_ROUTE = "digits"


@dataclass
class Stage:
    """What faults are done to."""

    router: Started
    stable: Sequence[Server]
    canary: Server
    shadow: Server
    collector: Program
    dns: DnsServer
    load: Load

    @property
    def data(self) -> str:
        return self.router.address("data")

    def workers(self) -> list[int]:
        """Return the proxies' pids."""
        found = self.router.children().items()
        return [pid for pid, words in found if "proxy" in words]

    def control_pid(self) -> int:
        return self.router.child("control")

    def status(self, timeout_s: float = 2.0) -> pb.RouteStatus:
        """Return what the control process knows. Raises grpc.RpcError."""
        with self.control() as control:
            return control.GetRoute(pb.GetRouteRequest(route=_ROUTE), timeout=timeout_s)

    @contextlib.contextmanager
    def control(self) -> Iterator[control_pb2_grpc.RouteControlStub]:
        # A pool of its own: a channel before it may still wait before it connects again.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.router.address("control"), options=options) as channel:
            yield control_pb2_grpc.RouteControlStub(channel)

    def set_canary(self, weight_bp: int, timeout_s: float = 5.0) -> pb.ChangeResponse:
        """Give the canary another weight, stable the rest."""
        request = pb.SetWeightsRequest(
            route=_ROUTE, weights_bp={"canary": weight_bp}, reason="soak", actor="soak"
        )
        with self.control() as control:
            return control.SetWeights(request, timeout=timeout_s)

    def log_count(self, event: str) -> int:
        """Return how many lines of the router's log are of that event."""
        return self.router.log.read_text().count(f'"{event}"')

    def trouble(self) -> str:
        """Return what isn't well; "" where all is."""
        try:
            status = self.status()
        except grpc.RpcError as error:
            return f"control: {error.code().name}"
        return "; ".join([*_proxies_behind(status), *_variants_lacking(status)])

    def stable_addresses(self) -> set[int]:
        """Return how many addresses of stable the proxies know."""
        reach = [each for proxy in self.status().proxies for each in proxy.reach]
        return {each.addresses for each in reach if each.variant == "stable"}

    def rss_mib(self) -> dict[str, float]:
        """Return what each of the router's processes holds of memory."""
        controls = [pid for pid, words in self.router.children().items() if "control" in words]
        kinds = {"control": controls, "proxies": self.workers()}
        found = {kind: sum(map(_rss_mib, pids)) for kind, pids in kinds.items()}
        return {"supervisor": _rss_mib(self.router.pid), **found}

    def kill_worker(self) -> Kill:
        """Kill a proxy; return which of the load's channels are connected to it."""
        victim, *living = self.workers()
        # It accepts nothing more between the look at its connections and its end.
        os.kill(victim, signal.SIGSTOP)
        try:
            lost = broken(int(self.data.rpartition(":")[2]), living)
            channels = self.load.channels_from(lost)
        finally:
            killed_s = time.monotonic()
            os.kill(victim, signal.SIGKILL)
        return Kill(killed_s, channels)


@contextlib.contextmanager
def stage(folder: Path, callers: int, rate: int) -> Iterator[Stage]:
    """Yield the stage once all of it is ready and called; afterwards all of it has ended."""
    with contextlib.ExitStack() as stack:
        repository = written("tests.models", folder / "models")
        stable, canary, shadow = _servers(repository, folder)
        servers = [*stable, canary, shadow]
        for each in servers:
            stack.callback(each.end)
            each.begin()
        collector = stack.enter_context(program("tests.soak.collector"))
        dns = stack.enter_context(DnsServer())
        dns.answer(STABLE_NAME, STABLE_HOSTS)
        for each in servers:
            each.await_ready()
        file = folder / "router.yaml"
        file.write_text(yaml.safe_dump(_configuration(stable, canary, shadow, dns, folder)))
        arguments = ("router", "run", "--config", file, "--workers", str(WORKERS))
        router = stack.enter_context(
            started(
                *(*arguments, "--grace", f"{_GRACE_S}s"),
                folder=folder,
                environment=_tracing_to(collector.read()),
            )
        )
        # A stopped process can't be ended in order.
        stack.callback(lambda: os.kill(collector.process.pid, signal.SIGCONT))
        load = ("tests.soak.load", router.address("data"))
        calls = program(*load, "--callers", str(callers), "--rate", str(rate))
        running = Load(stack.enter_context(calls))
        yield Stage(router, stable, canary, shadow, collector, dns, running)


def _servers(repository: Path, folder: Path) -> tuple[list[Server], Server, Server]:
    port = _free_port(STABLE_HOSTS)
    stable = [Server(f"{host}:{port}", repository, folder) for host in STABLE_HOSTS]
    canary, shadow = (
        Server(f"127.0.0.1:{_free_port(['127.0.0.1'])}", repository, folder) for _ in range(2)
    )
    return stable, canary, shadow


def _free_port(hosts: Sequence[str]) -> int:
    """Return a port that is free on all of them now."""
    with contextlib.ExitStack() as held:
        first = held.enter_context(socket.create_server((hosts[0], 0)))
        port = int(first.getsockname()[1])
        for host in hosts[1:]:
            held.enter_context(socket.create_server((host, port)))
        return port


def _configuration(
    stable: Sequence[Server], canary: Server, shadow: Server, dns: DnsServer, folder: Path
) -> dict[str, object]:
    port = int(stable[0].address.rpartition(":")[2])
    targets = {
        "stable": dns.target(STABLE_NAME, port),
        "canary": canary.address,
        "shadow": shadow.address,
    }
    route = {
        "name": _ROUTE,
        "match": {"model": MODEL},
        "variants": {
            name: {"backend": name, "version": version} for name, version in VERSIONS.items()
        },
        "weights": {"stable": 100 - CANARY_BP / 100, "canary": CANARY_BP / 100},
        "shadows": {"shadow": 100},
        "fallback": True,
        # Canary and shadow are not the same version, and are known to differ.
        "compare": {"default": {"rule": "close", "rtol": 0.01, "atol": 2.0}},
    }
    return {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {name: {"targets": [target]} for name, target in targets.items()},
        "routes": [route],
    }


def _tracing_to(endpoint: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
        "COALMINE_LOG_FORMAT": "json",
    }


def _proxies_behind(status: pb.RouteStatus) -> Iterator[str]:
    current = sum(each.revision == status.revision for each in status.proxies)
    if current != WORKERS or len(status.proxies) != WORKERS:
        yield f"{current} of {len(status.proxies)} proxies serve revision {status.revision}"
    for proxy in status.proxies:
        for each in proxy.reach:
            wanted = len(STABLE_HOSTS) if each.variant == "stable" else 1
            if not each.addresses == each.available == wanted:
                seen = f"{each.available} of {each.addresses} addresses, not {wanted}"
                yield f"{each.variant}: {seen} {' '.join(each.troubles)}"


def _variants_lacking(status: pb.RouteStatus) -> Iterator[str]:
    for each in status.variants:
        if not each.ready:
            yield f"{each.name}: {each.reason}"


def _rss_mib(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    print(f"no memory is told of process {pid}", file=sys.stderr)
    return 0.0
