"""The processes that are measured: each is started for real and stopped by pid."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.started import begun, kinds, line, python
from coalmine.process.addresses import reserve


@dataclass(frozen=True)
class Contestant:
    """A name, an address to send to, and the pids of the parts whose CPU is counted."""

    name: str
    address: str
    parts: Mapping[str, Sequence[int]]


@contextlib.contextmanager
def backend(response: bytes) -> Iterator[str]:
    """Yield the address of the canned backend that stands behind every router."""
    with python("benchmarks.backend", response.hex()) as process:
        yield f"127.0.0.1:{line(process)}"


@contextlib.contextmanager
def passthrough(address: str) -> Iterator[Contestant]:
    """Yield the bare grpc.aio pass-through."""
    with python("benchmarks.passthrough", address) as process:
        port = line(process)
        yield Contestant("bare grpc.aio", f"127.0.0.1:{port}", {"proxy": [process.pid]})


@contextlib.contextmanager
def router(address: str, folder: Path, *, workers: int = 1) -> Iterator[Contestant]:
    """Yield the whole router, with weights, a sticky key and reporting on."""
    config = folder / f"router-{workers}.yaml"
    config.write_text(_ROUTER.format(backend=address, state=folder / f"state-{workers}"))
    arguments = ("run", "--config", str(config), "--workers", str(workers))
    # Every request is reported; as in production, not every trace is kept.
    environment = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    with python("coalmine_router", *arguments, environment=environment) as process:
        said = json.loads(line(process))
        children = kinds(process.pid)
        title = "coalmine router" + (f", {workers} workers" if workers > 1 else "")
        yield Contestant(title, said["data"], {**children, "tree": [process.pid]})


@contextlib.contextmanager
def envoy(address: str, folder: Path) -> Iterator[Contestant]:
    """Yield Envoy on one thread, splitting over two weighted clusters."""
    if importlib.util.find_spec("envoy") is None:
        raise FileNotFoundError("envoy: pip install -c constraints.txt 'coalmine[bench]'")
    host, _, port = address.rpartition(":")
    listen = _free_port()
    config = folder / "envoy.yaml"
    config.write_text(
        _ENVOY.replace("@HCM", _HCM)
        .replace("@HOST", host)
        .replace("@PORT", port)
        .replace("@LISTEN", str(listen))
    )
    command = [
        *(str(Path(sys.executable).with_name("envoy")), "-c", str(config)),
        *("--concurrency", "1", "--log-level", "error", "--disable-hot-restart"),
    ]
    with begun(command, {}) as process:
        yield Contestant("Envoy", f"127.0.0.1:{listen}", {"proxy": [process.pid]})


def model(folder: Path, name: str) -> Path:
    """Return the TorchScript file that both servers load."""
    file = folder / f"{name}.pt"
    if not file.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.model", name, str(file)], check=True)
    return file


@contextlib.contextmanager
def minimal_server(folder: Path, name: str) -> Iterator[Contestant]:
    """Yield the smallest server that gives the same answers."""
    with python("benchmarks.minimal_server", str(model(folder, name))) as process:
        yield Contestant("minimal server", f"127.0.0.1:{line(process)}", {"server": [process.pid]})


@contextlib.contextmanager
def server(
    folder: Path,
    name: str,
    shape: str,
    *,
    max_batch: int = 32,
    max_delay: str = "0s",
    traced: bool = False,
) -> Iterator[Contestant]:
    """Yield the inference server, with the same model; `traced`, it records every request.

    With a `max_batch` of 0 the model has no batch dimension: it is declared with its one row.
    """
    repository = folder / f"{name}-{max_batch}-{'traced-' if traced else ''}models"
    subprocess.run(
        [
            *(sys.executable, "-m", "coalmine_client", "package", str(model(folder, name))),
            *("--repository", str(repository), "--name", "bench", "--version", "1"),
            *("--input", f"x:FP32:{_declared(shape, max_batch)}"),
            *("--output", f"y:FP32:{_declared('[10]', max_batch)}"),
            *("--max-batch-size", str(max_batch), "--max-delay", max_delay),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    listen = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    traces = ("--traces", str(folder / "traces")) if traced else ()
    arguments = ("server", "run", "--model-repository", str(repository), *listen, *traces)
    with python("coalmine_client", *arguments) as process:
        said = json.loads(line(process))
        title = "coalmine server" + (", every request traced" if traced else "")
        if max_batch <= 1:
            title += f", `max_batch_size: {max_batch}`"
        yield Contestant(title, said["grpc"], {"server": [process.pid]})


def _declared(row: str, max_batch: int) -> str:
    return row if max_batch else row.replace("[", "[1,")


class Loop:
    """The model without a server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def rows_per_s(self, batch: int, threads: int, seconds: float) -> float:
        """Return how many rows a second it takes, in batches of `batch`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{batch} {threads} {seconds}\n")
        self._process.stdin.flush()
        return float(line(self._process))


@contextlib.contextmanager
def loop(folder: Path, name: str, width: int) -> Iterator[Loop]:
    """Yield the model in a process of its own, idle until asked."""
    with python("benchmarks.loop", str(model(folder, name)), str(width)) as process:
        line(process)
        yield Loop(process)


def _free_port() -> int:
    with reserve("127.0.0.1:0", shared=False) as held:
        port: int = held.getsockname()[1]
    return port


_ROUTER = """
listen: 127.0.0.1:0
control: {{listen: 127.0.0.1:0, state: {state}}}
http: 127.0.0.1:0
backends:
  blue: {{targets: ["{backend}"]}}
routes:
  - name: bench
    match: {{model: bench}}
    variants:
      stable: {{backend: blue, version: "1"}}
      canary: {{backend: blue, version: "2"}}
    weights: {{stable: 90, canary: 10}}
    sticky: {{metadata: x-user-id}}
"""

_HCM = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
_ENVOY = """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: @LISTEN}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": @HCM
          codec_type: HTTP2
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/", grpc: {}}
                route:
                  timeout: 30s
                  weighted_clusters:
                    clusters: [{name: stable, weight: 90}, {name: canary, weight: 10}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: stable
    connect_timeout: 1s
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: stable
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: "@HOST", port_value: @PORT}}}
  - name: canary
    connect_timeout: 1s
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: canary
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: "@HOST", port_value: @PORT}}}
"""
