"""gRPC's own programs at every port: what they learn by reflection, and what they call by it."""

import base64
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any, Final

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coalmine.listener.symbols import symbols_of
from tests.conformance.go_programs import needs_go_programs, run_go_program
from tests.doubles.callers import TOKENS, write_tokens
from tests.doubles.certificates import Authority
from tests.doubles.processes import Started
from tests.doubles.router_setup import configuration
from tests.doubles.router_setup import router as router_of
from tests.doubles.server_process import server_of

pytestmark = needs_go_programs

_STANDARD: Final = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
_OIP: Final = "inference.GRPCInferenceService"
_CONTROL: Final = tuple(
    f"coalmine.control.v1.{each}" for each in ("Reports", "RouteControl", "TableFeed")
)
SERVICES: Final = {
    "server": (*_STANDARD, _OIP),
    "admin": (*_STANDARD, _OIP),
    "data": (*_STANDARD, _OIP),
    "control": (*_CONTROL, *_STANDARD),
}
_CALLS: Final = 2_000
_REQUEST: Final = {
    "model_name": "digits",
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 64]}],
    "raw_input_contents": [base64.b64encode(bytes(4 * 64)).decode()],
}


@dataclass(frozen=True)
class Ports:
    """Where a server and a router listen, by port, and what a caller says to be let in."""

    addresses: dict[str, str]
    ca: Path | None = None

    def asked(self, port: str, *words: str, options: Sequence[str | Path] = ()) -> Any:
        """Run grpcurl at a port."""
        encryption: list[str | Path] = ["-cacert", self.ca] if self.ca else ["-plaintext"]
        return run_go_program("grpcurl", *encryption, *options, self.addresses[port], *words)

    def listed(self, port: str, *words: str) -> list[str]:
        done = self.asked(port, "list", *words)
        assert done.returncode == 0, done.stderr
        return str(done.stdout).split()

    def probed(self, port: str, *options: str) -> Any:
        """Run grpc-health-probe at a port."""
        encryption: list[str | Path] = ["-tls", "-tls-ca-cert", self.ca] if self.ca else []
        where = ["-addr", self.addresses[port], *encryption]
        return run_go_program("grpc-health-probe", *where, *options)


@pytest.fixture(scope="module")
def models(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    copytree(repository / "digits", folder / "digits")
    return folder


def running_ports(server: Started, router: Started, ca: Path | None = None) -> Ports:
    addresses = {
        "server": server.address("grpc"),
        "admin": server.address("admin"),
        "data": router.address("data"),
        "control": router.address("control"),
    }
    return Ports(addresses, ca)


ADMIN: Final = ("--allow-load", "--admin-listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def ports(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("open")
    with (
        server_of(models, folder, *ADMIN) as server,
        router_of(configuration(folder, server.address("grpc"))) as router,
    ):
        yield running_ports(server, router)


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Return ports with TLS that know a viewer's token."""
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder / "certificates")
    pair = authority.server()
    tokens = write_tokens(folder / "tokens.yaml", "viewer", "caller")
    tls: Sequence[str | Path] = ("--tls-cert", pair.cert, "--tls-key", pair.key)
    with (
        server_of(models, folder, *ADMIN, *tls, "--tokens", tokens) as server,
        router_of(guarded_router(folder, server, authority, tokens)) as router,
    ):
        yield running_ports(server, router, authority.ca)


def guarded_router(folder: Path, server: Started, authority: Authority, tokens: Path) -> Path:
    file = configuration(folder, server.address("grpc"))
    text = yaml.safe_load(file.read_text())
    pair = authority.server()
    more = {"tls": {"cert": str(pair.cert), "key": str(pair.key)}, "tokens": str(tokens)}
    (folder / "token").write_text(TOKENS["caller"])
    backend = {"tls": {"ca": str(authority.ca)}, "token_file": str(folder / "token")}
    text |= more
    text["control"] |= more
    text["backends"]["blue"] |= backend
    file.write_text(yaml.safe_dump(text))
    return file


# ---------------------------------------------------------------- grpcurl


@pytest.mark.parametrize("port", SERVICES)
def test_grpcurl_lists_what_a_port_offers(ports: Ports, port: str) -> None:
    assert ports.listed(port) == list(SERVICES[port])


@pytest.mark.parametrize("port", SERVICES)
def test_grpcurl_describes_every_symbol_that_it_can_name(
    ports: Ports, port: str, tmp_path: Path
) -> None:
    symbols = set()
    for service in ports.listed(port):
        symbols |= {service, *ports.listed(port, service)}
        symbols |= symbols_sent(ports, port, service, tmp_path / f"{service}.binpb")
    assert len(symbols) > 200

    with ThreadPoolExecutor(4) as threads:
        described = threads.map(lambda each: ports.asked(port, "describe", each), symbols)
        for symbol, done in zip(symbols, described, strict=True):
            assert done.returncode == 0, done.stderr
            assert done.stdout.partition(" is ")[0].endswith(symbol.rpartition(".")[2])


def symbols_sent(ports: Ports, port: str, service: str, file: Path) -> set[str]:
    """Return all that the files define which grpcurl is sent for a service."""
    done = ports.asked(port, "describe", service, options=["-protoset-out", file])
    assert done.returncode == 0, done.stderr
    sent = FileDescriptorSet.FromString(file.read_bytes())
    return {symbol for each in sent.file for symbol in symbols_of(each)}


@pytest.mark.parametrize("port", SERVICES)
def test_grpcurl_says_that_there_is_no_such_symbol(ports: Ports, port: str) -> None:
    done = ports.asked(port, "describe", "inference.Nothing")
    assert (done.returncode, "Symbol not found: inference.Nothing" in done.stderr) == (1, True)


@pytest.mark.parametrize("port", SERVICES)
def test_grpcurl_is_let_in_by_a_token_over_tls(guarded: Ports, port: str) -> None:
    refused = guarded.asked(port, "list")
    assert refused.returncode == 1
    assert "Unauthenticated" in refused.stderr
    shown = ["-H", f"authorization: Bearer {TOKENS['viewer']}"]
    listed = guarded.asked(port, "list", options=shown)
    assert listed.stdout.split() == list(SERVICES[port]), listed.stderr


def called(ports: Ports, port: str, method: str, **request: str) -> Any:
    done = ports.asked(port, method, options=["-d", json.dumps(request)])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_grpcurl_calls_by_reflection(ports: Ports) -> None:
    for port in ("server", "data"):
        assert called(ports, port, f"{_OIP}/ModelReady", name="digits") == {"ready": True}
    assert called(ports, "admin", f"{_OIP}/RepositoryModelLoad", model_name="digits") == {}
    status = called(ports, "control", f"{_CONTROL[1]}/GetRoute", route="digits")
    assert status["route"]["name"] == "digits"


# ---------------------------------------------------------------- ghz


@pytest.mark.parametrize("port", ["server", "data"])
def test_ghz_calls_by_reflection_and_none_fails(ports: Ports, port: str) -> None:
    done = run_go_program(
        "ghz",
        *("--insecure", "--call", f"{_OIP}.ModelInfer", "--data", json.dumps(_REQUEST)),
        *("--total", str(_CALLS), "--concurrency", "10", "--format", "json"),
        ports.addresses[port],
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["count"], told["statusCodeDistribution"]) == (_CALLS, {"OK": _CALLS})


# ---------------------------------------------------------------- grpc-health-probe


@pytest.mark.parametrize("port", SERVICES)
def test_a_health_probe_is_told_that_a_port_serves(ports: Ports, port: str) -> None:
    done = ports.probed(port)
    assert (done.returncode, done.stderr.strip()) == (0, "status: SERVING")


@pytest.mark.parametrize("port", SERVICES)
@pytest.mark.parametrize("token", ["", TOKENS["viewer"]])
def test_a_health_probe_needs_tls_and_no_token(guarded: Ports, port: str, token: str) -> None:
    shown = ["-rpc-header", f"authorization: Bearer {token}"] if token else []
    done = guarded.probed(port, *shown)
    assert (done.returncode, done.stderr.strip()) == (0, "status: SERVING")


@pytest.mark.parametrize("port", ["server", "admin"])
def test_a_health_probe_asks_for_a_model(ports: Ports, port: str) -> None:
    assert ports.probed(port, "-service", "model/digits").returncode == 0
    nobody = ports.probed(port, "-service", "model/nobody")
    assert nobody.returncode != 0
    assert "NotFound" in nobody.stderr
