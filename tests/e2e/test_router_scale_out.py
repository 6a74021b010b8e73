"""One control process and three proxies, as on machines of their own: by TLS and tokens alone."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml

from coalmine.access.target import Target
from coalmine.access.tls_files import Tls
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine.process.addresses import bound_address, reserve
from tests.doubles.callers import TOKENS, bearer, write_tokens
from tests.doubles.certificates import Authority, Pair
from tests.doubles.inference_server import FakeInference, serving
from tests.doubles.oip_backend import INFER
from tests.doubles.processes import Started, ran, started
from tests.doubles.router_setup import REQUEST, configuration
from tests.doubles.waiting import until

PROXIES = 3
FOR_BACKENDS = "cm_" + "b" * 43


def largest(is_taken: Callable[[int], bool], low: int, high: int) -> int:
    """Return the largest size that is taken, of those from `low`, which is, to `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_taken(middle) else (low, middle)
    return low


@dataclass
class Cluster:
    """The files that all of it shares, and how its processes are started."""

    folder: Path
    authority: Authority
    pair: Pair
    config: Path
    tokens: Path
    control_address: str
    host: str

    @contextlib.contextmanager
    def control(self) -> Iterator[Started]:
        with started("router", "control", "--config", self.config, folder=self.folder) as running:
            yield running

    @contextlib.contextmanager
    def proxy(self, name: str) -> Iterator[Started]:
        """Run a proxy with a state folder of its own, as it would have on another machine."""
        arguments: list[str | Path] = [
            *("router", "proxy", "--control", self.control_address),
            *("--listen", f"{self.host}:0"),
            *("--state", self.folder / name, "--grace", "2s"),
            *("--ca", self.authority.ca, "--token-file", self.folder / "proxy-token"),
            *("--tls-cert", self.pair.cert, "--tls-key", self.pair.key, "--tokens", self.tokens),
        ]
        with started(*arguments, folder=self.folder) as running:
            yield running

    @contextlib.contextmanager
    def operator(self) -> Iterator[RouteControlStub]:
        with Target(self.control_address, Tls(self.authority.ca)).open_channel() as channel:
            yield RouteControlStub(channel)

    @contextlib.contextmanager
    def caller(self, proxy: Started) -> Iterator[grpc.Channel]:
        with Target(proxy.address("data"), Tls(self.authority.ca)).open_channel() as channel:
            yield channel

    def revision(self, channel: grpc.Channel, token: str = "caller") -> tuple[str, int]:
        """Return which variant answers a call, and the revision it was routed by."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{INFER}")
        _, done = call.with_call(REQUEST, timeout=10, metadata=bearer(token))
        said = {key: str(value) for key, value in done.trailing_metadata() or ()}
        return said["x-coalmine-variant"], int(said["x-coalmine-revision"])

    def code(self, channel: grpc.Channel, pad_bytes: int) -> str:
        """Return how a call ends that has so many bytes of metadata beside gRPC's own."""
        pad = ("x-pad", "x" * (pad_bytes - len("x-pad") - 32))
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{INFER}")
        try:
            call(REQUEST, timeout=10, metadata=(*bearer("caller"), pad))
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def weights(self, canary: int) -> pb.ChangeResponse:
        request = pb.SetWeightsRequest(route="digits", weights_bp={"canary": canary})
        with self.operator() as operator:
            return operator.SetWeights(request, timeout=10, metadata=bearer("operator"))

    def coalmine(self, *verb: str) -> str:
        """Return what a verb says to an operator."""
        environment = {
            "COALMINE_CONTROL": self.control_address,
            "COALMINE_CA": str(self.authority.ca),
            "COALMINE_TOKEN": TOKENS["operator"],
        }
        done = ran(*verb, folder=self.folder, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def backend() -> FakeInference:
    return FakeInference()


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, backend: FakeInference
) -> Iterator[Cluster]:
    host = getattr(request, "param", "127.0.0.1")
    authority = Authority(tmp_path / "certs")
    pair = authority.server()
    tokens = write_tokens(tmp_path / "tokens.yaml", "viewer", "caller", "proxy", "operator")
    (tmp_path / "proxy-token").write_text(TOKENS["proxy"])
    with reserve(f"{host}:0", shared=False) as held:
        control_address = bound_address(held)
    with serving(backend, f"{host}:0") as address:
        config = configuration(tmp_path, address)
        said = yaml.safe_load(config.read_text())
        said["http"] = f"{host}:0"
        said["control"] |= {
            "listen": control_address,
            "tls": {"cert": str(pair.cert), "key": str(pair.key)},
            "tokens": str(tokens),
        }
        (tmp_path / "backend-token").write_text(FOR_BACKENDS)
        said["backends"]["blue"]["token_file"] = str(tmp_path / "backend-token")
        config.write_text(yaml.safe_dump(said))
        yield Cluster(tmp_path, authority, pair, config, tokens, control_address, host)


@pytest.mark.parametrize("cluster", ["127.0.0.1", "[::1]"], indirect=True)
def test_three_proxies_follow_one_control_process_and_serve_on_without_it(
    cluster: Cluster, backend: FakeInference
) -> None:
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(cluster.control())
        proxies = [stack.enter_context(cluster.proxy(f"p{n}")) for n in range(PROXIES)]
        callers = [stack.enter_context(cluster.caller(each)) for each in proxies]
        with cluster.operator() as operator:
            asked = pb.GetRouteRequest(route="digits")
            shows = bearer("viewer")
            until(lambda: len(operator.GetRoute(asked, metadata=shows).proxies) == PROXIES, 10)

        # ---- weights arrive everywhere within a second
        for canary in (1_000, 5_000, 10_000):
            began = time.monotonic()
            change = cluster.weights(canary)
            took_s = time.monotonic() - began
            assert (change.proxies_current, change.proxies) == (PROXIES, PROXIES)
            assert took_s < 1.0
            for caller in callers:
                assert cluster.revision(caller)[1] == change.revision
        assert {cluster.revision(caller)[0] for caller in callers} == {"canary"}

        # ---- a caller's token ends at the proxy
        shown = {
            value for seen in backend.metadata for key, value in seen if key == "authorization"
        }
        assert shown == {f"Bearer {FOR_BACKENDS}"}
        with pytest.raises(grpc.RpcError) as caught:
            cluster.revision(callers[0], "viewer")
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED

        # ---- and what a proxy takes, a backend with gRPC's own limits takes too
        most = largest(lambda size: cluster.code(callers[0], size) == "OK", 1_000, 9_000)
        assert 6_000 < most < 7_168
        # gRPC writes the time that is left shorter or longer.
        codes = Counter(cluster.code(callers[0], most - 8) for _ in range(30))
        assert codes == {"OK": 30}
        assert cluster.code(callers[0], most + 8) == "RESOURCE_EXHAUSTED"

        # ---- without control, all serve on, and one that starts serves by its saved table
        os.kill(control.pid, signal.SIGKILL)
        control.kill()
        for caller in callers:
            assert [cluster.revision(caller) for _ in range(20)] == [
                ("canary", change.revision)
            ] * 20
        assert proxies[2].stop() == 0
        late = stack.enter_context(cluster.proxy("p2"))
        assert "serving_saved_table" in late.log.read_text()
        with cluster.caller(late) as caller:
            assert cluster.revision(caller) == ("canary", change.revision)

        # ---- and it is known of, once control is back
        stack.enter_context(cluster.control())
        with cluster.operator() as operator:
            until(lambda: len(operator.GetRoute(asked, metadata=shows).proxies) == PROXIES, 15)
        again = cluster.weights(0)
        assert again.revision == change.revision + 1
        assert (again.proxies_current, again.proxies) == (PROXIES, PROXIES)
        assert "saved table" in cluster.coalmine("status", "digits", "--all")
        assert "operator-1 (" not in cluster.coalmine("history", "digits")
