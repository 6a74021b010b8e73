"""`router run`, from its parts. What it keeps is in proxy_app.py and control_app.py."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import structlog
from prometheus_client import CollectorRegistry

from coalmine.errors import StartError, reason_of
from coalmine.process import lifecycle
from coalmine.process.addresses import bound_address, check_free, loopback_address, reserve
from coalmine.process.child_process import Command
from coalmine.process.exposition import exposing
from coalmine.process.lifecycle import Stop
from coalmine.process.private_folder import temporary_folder
from coalmine.process.sighup import watch_hangup
from coalmine.process.worker_bounds import NO_BOUNDS, WorkerBounds
from coalmine_router.config.file import RouterConfig
from coalmine_router.reload import Reload
from coalmine_router.supervisor import Grace, Supervisor, process_command

_log = structlog.get_logger(__name__)

_SOCKET_PATH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `router run` is given; `text` is what the file holds."""

    config_file: Path
    text: str
    config: RouterConfig
    workers: int
    grace: Grace
    proxy_bounds: WorkerBounds = NO_BOUNDS


class Places(NamedTuple):
    """Where a running router is: the same for every process that it starts."""

    data: str
    control: str
    # For proxies on this machine; "" where there can't be one.
    socket: str


async def run_router(settings: RunSettings, stop: Stop) -> None:
    """Keep one control process and the proxies until `stop`. Raises StartError."""
    config = settings.config
    asked = watch_hangup(stop)
    check_free(config.listen)
    # Held, not listened on: the port stays ours while proxies come and go.
    with (
        reserve(config.listen, shared=True) as data_port,
        _socket_folder(config.control.state) as folder,
    ):
        places = Places(
            bound_address(data_port),
            _with_real_port(config.control.listen),
            _socket_target(folder),
        )
        control = _control_command(settings, settings.config_file, places)
        supervisor = Supervisor(
            control,
            _proxy_commands(settings, places),
            settings.grace,
            proxy_bounds=settings.proxy_bounds,
        )
        with _exposing_metrics(config.http, supervisor, stop) as http:
            await supervisor.run(stop, _serve_callback(settings, places, supervisor, asked, http))


@contextlib.contextmanager
def _exposing_metrics(address: str, supervisor: Supervisor, stop: Stop) -> Iterator[str]:
    """Yield where /metrics and health answer, whatever becomes of the processes."""
    registry = CollectorRegistry()
    registry.register(supervisor.metrics())

    def why_not_ready() -> str:
        return "the router ends" if stop.is_asked else supervisor.why_not()

    with exposing(address, registry, lambda: not why_not_ready(), why_not_ready) as http:
        yield http


def _serve_callback(
    settings: RunSettings,
    places: Places,
    supervisor: Supervisor,
    asked: asyncio.Event,
    http: str,
) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return what is done while all processes are up."""
    in_force = settings.config.control.state / "config-in-force.yaml"
    control = _control_command(settings, in_force, places)
    reload = Reload(
        settings.config_file,
        settings.text,
        settings.config,
        in_force=in_force,
        succeed_control=lambda: supervisor.succeed_control(control),
        proxies=lambda config: _proxy_commands(replace(settings, config=config), places),
        roll=supervisor.roll,
    )

    async def announce_and_reload() -> None:
        # Not earlier: the state folder is another router's until our control process has it.
        if reload.write_copy():
            supervisor.set_control_command(control)
        lifecycle.announce(data=places.data, control=places.control, http=http)
        await reload.run(asked)

    return announce_and_reload


def _with_real_port(address: str) -> str:
    """Return `address` with a real port: it must be the same when the process is restarted."""
    with reserve(address, shared=False) as held:
        return bound_address(held)


@contextlib.contextmanager
def _socket_folder(state: Path) -> Iterator[Path]:
    """Yield where a socket can be made: in the state folder, unless its disk is in trouble."""
    try:
        _try_to_bind_socket(state)
    except OSError as error:
        with contextlib.ExitStack() as stack:
            folder = state
            with contextlib.suppress(StartError):  # there is no other place
                folder = stack.enter_context(temporary_folder("coalmine-router-"))
                _log.warning("socket_elsewhere", folder=str(folder), error=reason_of(error))
            yield folder
        return
    yield state


def _try_to_bind_socket(state: Path) -> None:
    """Raise OSError where the state folder takes no socket because of its disk."""
    trial = state / f"control.sock.{os.getpid()}"
    if not state.exists():  # it is for the control process to make
        above = next(each for each in state.resolve().parents if each.exists())
        if os.statvfs(above).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    elif state.is_dir() and len(_absolute_path_bytes(trial)) <= _SOCKET_PATH_MAX:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as tried:
            tried.bind(_absolute_path_bytes(trial))
        trial.unlink()


def _socket_target(folder: Path) -> str:
    """Return a Unix socket's target in a folder; "" where the path is too long for one."""
    path = _absolute_path_bytes(folder / "control.sock")
    return f"unix:{quote(path)}" if len(path) <= _SOCKET_PATH_MAX else ""


def _absolute_path_bytes(file: Path) -> bytes:
    return os.fsencode(file.parent.resolve() / file.name)


def _control_command(settings: RunSettings, file: Path, places: Places) -> Command:
    arguments = [
        *("control", "--config", str(file), "--socket", places.socket),
        *("--listen", places.control, "--http", loopback_address()),
        *("--state", str(settings.config.control.state)),
        *("--grace", f"{settings.grace.copies_s:.3f}s"),
    ]
    return process_command("control", arguments)


def _proxy_commands(settings: RunSettings, places: Places) -> list[Command]:
    arguments = _proxy_arguments(settings, places.data, places.socket or places.control)
    return [process_command(f"proxy-{n}", arguments) for n in range(settings.workers)]


def _proxy_arguments(settings: RunSettings, data: str, control: str) -> list[str]:
    config = settings.config
    if not control.startswith("unix:") and (config.control.tls or config.control.tokens):
        path = config.control.state.resolve()
        raise StartError(
            f"control.state: {path} is too long a path for a socket, by which the proxies reach "
            "a control process that asks for TLS or tokens"
        )
    return [
        *("proxy", "--control", control, "--listen", data, "--shared-port"),
        *("--http", loopback_address()),
        *("--state", str(config.control.state)),
        *("--grace", f"{settings.grace.requests_s:.3f}s"),
        *_listener_arguments(config),
    ]


def _listener_arguments(config: RouterConfig) -> Iterator[str]:
    tls = config.tls
    files = {
        "--tls-cert": tls and tls.cert,
        "--tls-key": tls and tls.key,
        "--tls-client-ca": tls and tls.client_ca,
        "--tokens": config.tokens,
    }
    for option, file in files.items():
        if file:
            yield from (option, str(file))
