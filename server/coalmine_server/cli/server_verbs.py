"""The verbs `coalmine server …` and `coalmine package`. Imports no torch until it is needed."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from coalmine.access.tls_files import TlsFiles
from coalmine.command_line.connection_options import Tokens, in_place_of, with_tls_options
from coalmine.command_line.failure import VerbGroup
from coalmine.command_line.number_options import duration_s, whole_option
from coalmine.errors import StartError
from coalmine.process.output_capture import capturing_output
from coalmine.process.worker_bounds import WorkerBounds
from coalmine.spans.span_settings import check_resource
from coalmine_server.cli.operator_verbs import load, models, unload
from coalmine_server.cli.repository_verbs import check, package
from coalmine_server.cli.starting import start_logging_and_check_torch
from coalmine_server.cli.token_verb import token
from coalmine_server.config import Bounds, Connections, LoadLimits, ServerConfig
from coalmine_server.fleet import supervisor

__all__ = ["package", "server"]

server = typer.Typer(
    name="server",
    cls=VerbGroup,
    help="Serve TorchScript models over gRPC.",
    no_args_is_help=True,
)

_MIB: Final = 1024 * 1024
_SECONDS_MAX: Final = 500 * 3600  # gRPC counts milliseconds in 31 bits

_Repository = Annotated[
    Path, typer.Option("--model-repository", help="Folder of NAME/VERSION/model.pt.")
]
_Listen = Annotated[str, typer.Option(help="Address of the gRPC side.")]
_Http = Annotated[str, typer.Option(help="Address of /metrics, /healthz and /readyz.")]
_Grace = Annotated[str, typer.Option(help="How long requests in flight may take at the end.")]
_Traces = Annotated[
    Path | None, typer.Option(help="Folder for traces as OTLP JSON, where no OTLP endpoint is set.")
]
_AllowLoad = Annotated[
    bool, typer.Option("--allow-load", help="Let models be loaded and unloaded by RPC.")
]
_Poll = Annotated[str, typer.Option(help="Look for changed models this often, such as 5s; 0s: no.")]
_LoadTimeout = Annotated[
    str, typer.Option(help="Most time for load and warm-up of a version; config.yaml may differ.")
]
_Workers = Annotated[
    int, whole_option(min=1, max=256, help="Processes that share the port, each with all models.")
]
_WorkerAge = Annotated[
    str, typer.Option(help="A worker this old gives its place to another; 0s: never.")
]
_WorkerMemory = Annotated[
    int, whole_option(min=0, help="So does one that holds more MiB of memory; 0: never.")
]
_IntraOp = Annotated[
    int | None,
    whole_option(
        min=1, max=256, help="Cores for one run of a model. [its share of the container's]"
    ),
]
_Admin = Annotated[
    str | None, typer.Option(help="Address for loading and unloading alone; elsewhere they're off.")
]
_Message = Annotated[int, whole_option(min=1, max=2047, help="Most MiB of a message, both ways.")]
_Calls = Annotated[int, whole_option(min=1, help="Most inference calls in flight.")]
_Bytes = Annotated[int, whole_option(min=1, help="Most MiB of requests in flight.")]
_Age = Annotated[
    str, typer.Option(help="Connections are renewed at about this age, so load spreads; 0s: never.")
]
_Keepalive = Annotated[str, typer.Option(help="Idle connections are pinged this often; 0s: never.")]


@server.callback()
def _server_group() -> None:
    """Serve TorchScript models over gRPC."""


def _bounds(
    *,
    max_message_mib: _Message = 64,
    max_in_flight: _Calls = 4096,
    max_in_flight_mib: _Bytes = 1024,
) -> Bounds:
    return Bounds(max_message_mib * _MIB, max_in_flight, max_in_flight_mib * _MIB)


def _connections(*, max_connection_age: _Age = "5m", keepalive: _Keepalive = "2h") -> Connections:
    age_s = _seconds_of("--max-connection-age", max_connection_age)
    return Connections(age_s, _seconds_of("--keepalive", keepalive))


@server.command()
@with_tls_options
@in_place_of("bounds", _bounds)
@in_place_of("connections", _connections)
def run(
    *,
    model_repository: _Repository,
    listen: _Listen = "127.0.0.1:8001",
    http: _Http = "127.0.0.1:8002",
    grace: _Grace = "30s",
    traces: _Traces = None,
    workers: _Workers = 1,
    max_worker_age: _WorkerAge = "0s",
    max_worker_mib: _WorkerMemory = 0,
    allow_load: _AllowLoad = False,
    poll: _Poll = "0s",
    load_timeout: _LoadTimeout = "5m",
    intra_op: _IntraOp = None,
    admin_listen: _Admin = None,
    tls: TlsFiles | None,
    tokens: Tokens = None,
    bounds: Bounds,
    connections: Connections,
) -> None:
    """Serve the models of a repository until SIGTERM or Ctrl-C.

    Example: coalmine server run --model-repository models --poll 5s
    """
    start_logging_and_check_torch()
    config = ServerConfig(
        repository=model_repository,
        listen=listen,
        http=http,
        grace_s=_seconds_of("--grace", grace),
        traces=traces,
        allow_load=allow_load,
        poll_s=_seconds_of("--poll", poll),
        workers=workers,
        worker_bounds=WorkerBounds(_seconds_of("--max-worker-age", max_worker_age), max_worker_mib),
        intra_op=intra_op,
        admin_listen=admin_listen,
        tls=tls,
        tokens=tokens,
        bounds=bounds,
        connections=connections,
        loads=LoadLimits(timeout_s=_seconds_above_zero("--load-timeout", load_timeout)),
    )
    raise typer.Exit(_run_server(config))


for _verb in (check, models, load, unload, token):
    server.command()(_verb)


def _run_server(config: ServerConfig) -> int:
    # Threads of a forward that wait for each other by spinning starve the loop beside them: twice
    # the CPU for a request to a small model. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with capturing_output():
        check_resource(os.environ)  # OpenTelemetry reads it, and logs, as soon as it is imported
        if config.has_supervisor:
            return supervisor.run(config)
        from coalmine_server import app  # noqa: PLC0415 - brings torch

        return app.run(config)


# ---------------------------------------------------------------- what is asked for


def _seconds_above_zero(option: str, text: str) -> float:
    seconds = _seconds_of(option, text)
    if not seconds:
        raise StartError(f"{option}: expected more than 0s")
    return seconds


def _seconds_of(option: str, text: str) -> float:
    seconds = duration_s(option, text)
    if seconds > _SECONDS_MAX:
        raise StartError(f"{option}: expected at most {_SECONDS_MAX // 3600}h, got {text}")
    return seconds
