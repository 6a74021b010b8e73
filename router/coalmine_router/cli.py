"""`coalmine router …`: run, check, and the parts that run is made of.

A command imports its own parts, and no other's: three processes start one after the other.
"""

import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coalmine.access.target import Target
from coalmine.access.tls_files import Tls, TlsFiles
from coalmine.command_line.connection_options import (
    Ca,
    Cert,
    Key,
    ServerName,
    Token,
    TokenInPlaintext,
    Tokens,
    in_place_of,
    with_tls_options,
)
from coalmine.command_line.failure import VerbGroup
from coalmine.command_line.number_options import duration_s, whole_option
from coalmine.errors import StartError
from coalmine.process import lifecycle
from coalmine.process.early_signals import leave_hangup_to_system
from coalmine.process.exit_codes import EXIT_FAILED
from coalmine.process.lifecycle import Stop
from coalmine.process.log import configure_logging
from coalmine.process.output_capture import capturing_output
from coalmine.process.standard_streams import print_error_line
from coalmine.process.text_file import content_of
from coalmine.process.worker_bounds import WorkerBounds
from coalmine.spans.span_settings import check_resource
from coalmine.telemetry import ROUTER_SERVICE

if TYPE_CHECKING:
    from coalmine_router.config.file import RouterConfig
    from coalmine_router.weights_check import Saved

router = typer.Typer(
    name="router",
    cls=VerbGroup,
    help="Split traffic between variants of a model, and compare their predictions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@router.callback()
def _set_up_command(context: typer.Context) -> None:
    if context.invoked_subcommand != "run":
        leave_hangup_to_system()


ConfigFile = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The router's configuration.")
]
GraceOption = Annotated[
    str, typer.Option(metavar="TIME", help="How long it may take to end, with what is in flight.")
]
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True)]


@router.command()
def run(
    config: ConfigFile,
    workers: Annotated[int, whole_option(min=1, max=64, help="Proxy processes.")] = 1,
    max_worker_age: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="A proxy this old gives its place to another; 0s: never."
        ),
    ] = "0s",
    max_worker_mib: Annotated[
        int, whole_option(min=0, help="So does one that holds more MiB of memory; 0: never.")
    ] = 0,
    grace: GraceOption = "30s",
) -> None:
    """Run the whole router on this machine: one control process and the proxies.

    Example: coalmine router run --config router.yaml --workers 2
    """
    from coalmine_router import app
    from coalmine_router.config.file import parse_config
    from coalmine_router.supervisor import Grace

    def start_router(stop: Stop) -> Coroutine[Any, Any, None]:
        shares = Grace.of(duration_s("--grace", grace))
        text = content_of(config)
        bounds = WorkerBounds(duration_s("--max-worker-age", max_worker_age), max_worker_mib)
        checked_config = parse_config(text, path=config)
        settings = app.RunSettings(config, text, checked_config, workers, shares, bounds)
        return app.run_router(settings, stop)

    _run_and_exit(start_router, with_parent=False)


@router.command()
def control(
    config: ConfigFile,
    listen: Annotated[
        str,
        typer.Option(metavar="ADDR", help="Where the control API listens, not as the file says."),
    ] = "",
    http: Annotated[
        str, typer.Option(metavar="ADDR", help="Where /metrics listens, not as the file says.")
    ] = "",
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the state is kept, not as the file says."),
    ] = None,
    socket: Annotated[
        str,
        typer.Option(metavar="unix:PATH", help="Listen there too, for proxies on this machine."),
    ] = "",
    grace: GraceOption = "30s",
    with_parent: WithParent = False,
    stand_by: Annotated[bool, typer.Option("--stand-by", hidden=True)] = False,
) -> None:
    """Run the control process alone: control API, state, and what is learnt from reports.

    Example: coalmine router control --config router.yaml
    """
    check_resource(os.environ)  # OpenTelemetry reads it, and logs, as soon as it is imported
    from coalmine_router import control_app
    from coalmine_router.config.file import read_config

    def start_control(stop: Stop) -> Coroutine[Any, Any, None]:
        settings = control_app.ControlSettings(
            config=_config_with_places(read_config(config), listen, http, state),
            socket=socket,
            grace_s=duration_s("--grace", grace),
            stands_by=stand_by,
        )
        return control_app.run_control(settings, stop)

    _run_and_exit(start_control, with_parent=with_parent)


def _control_target_maker(
    *,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
    token: Token = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the token; read again when it changes."),
    ] = None,
    token_in_plaintext: TokenInPlaintext = False,
) -> Callable[[str], Target]:
    """Return what makes a Target of the control process's address."""
    tls = Tls.from_options(ca, cert, key, server_name)
    return lambda address: Target(address, tls, token, token_in_plaintext, token_file)


@router.command()
@in_place_of("control_at", _control_target_maker)
@with_tls_options
def proxy(
    *,
    control: Annotated[
        str, typer.Option(metavar="ADDR", envvar="COALMINE_CONTROL", help="The control process.")
    ] = "127.0.0.1:9002",
    listen: Annotated[str, typer.Option(metavar="ADDR", help="The data port.")] = "127.0.0.1:9001",
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the last route table is kept.")
    ] = Path("./state"),
    shared_port: Annotated[
        bool, typer.Option("--shared-port", help="Other proxies listen on the same port.")
    ] = False,
    http: Annotated[
        str, typer.Option(metavar="ADDR", help="Where /metrics and health listen; else nowhere.")
    ] = "",
    control_at: Callable[[str], Target],
    tls: TlsFiles | None,
    tokens: Tokens = None,
    grace: GraceOption = "30s",
    with_parent: WithParent = False,
) -> None:
    """Run one proxy, which follows a control process.

    --ca to --token-in-plaintext are of the way to the control process, --tls-cert to --tokens of
    the data port.

    Example: coalmine router proxy --control 127.0.0.1:9002 --listen 127.0.0.1:9001
    """
    from coalmine_router import proxy_app
    from coalmine_router.proxy.listener import ListenerSettings

    def start_proxy(stop: Stop) -> Coroutine[Any, Any, None]:
        settings = proxy_app.ProxySettings(
            control_at(control),
            ListenerSettings(listen, shared_port, tls, tokens),
            state,
            http,
            duration_s("--grace", grace),
        )
        return proxy_app.run_proxy(settings, stop)

    _run_and_exit(start_proxy, with_parent=with_parent)


@router.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The router's configuration.")],
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Show the weights in force too; without: the file's own, if there."
        ),
    ] = None,
) -> None:
    """Read a configuration and the files that it names; say what it means, or what is wrong.

    Exit code 2: it can't be used. 1: a certificate has expired, or isn't valid yet. One
    that ends within 14 days is named, and changes no exit code.

    Example: coalmine router check router.yaml --state state
    """
    from coalmine_router.config.file import read_config
    from coalmine_router.files import certificate_problems, certificate_warnings, check_files
    from coalmine_router.weights_check import read_saved_splits, split_lines

    config = read_config(file)
    check_files(config)
    saved = read_saved_splits(state) if state else _read_saved_splits(config)
    lines = list(split_lines(config.table(), saved))
    typer.echo(f"{file}: good: {len(config.backends)} backends, {len(config.routes)} routes")
    for line in lines:
        typer.echo(f"  {line}")
    now = datetime.now(UTC)
    problems = certificate_problems(config, now)
    for said in (*problems, *certificate_warnings(config, now)):
        print_error_line(said)
    if problems:
        raise typer.Exit(EXIT_FAILED)


def _read_saved_splits(config: "RouterConfig") -> "Saved":
    """Return what the file's own state folder has; none where that isn't there."""
    from coalmine_router.weights_check import read_saved_splits

    folder = config.control.state
    try:
        return read_saved_splits(folder) if folder.exists() else {}
    except (StartError, OSError) as error:  # the file itself is good all the same
        print_error_line(f"the weights in force are not known: {error}")
        return {}


def _run_and_exit(body: Callable[[Stop], Coroutine[Any, Any, None]], *, with_parent: bool) -> None:
    configure_logging(ROUTER_SERVICE)
    with capturing_output():
        code = lifecycle.run(body, with_parent=with_parent)
    raise typer.Exit(code)


def _config_with_places(
    config: "RouterConfig", listen: str, http: str, state: Path | None
) -> "RouterConfig":
    """Return the configuration with other addresses and state folder, where there are any."""
    given = {"listen": listen or config.control.listen, "state": state or config.control.state}
    control_config = config.control.model_copy(update=given)
    return config.model_copy(update={"control": control_config, "http": http or config.http})
