"""`router run`, from its parts. What it keeps is in proxy_app.py and control_app.py."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from coalmine import lifecycle
from coalmine.addresses import bound_address, check_free, reserve
from coalmine.lifecycle import Stop
from coalmine_router.config import RouterConfig
from coalmine_router.supervisor import Grace, Supervisor, command

_SOCKET_PATH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `router run` is given."""

    config_file: Path
    config: RouterConfig
    workers: int
    grace: Grace


async def run(settings: RunSettings, stop: Stop) -> None:
    """Keep one control process and the proxies until `stop`. Raises StartError."""
    config = settings.config
    check_free(config.listen)
    # Held, not listened on: the port stays ours while proxies come and go.
    with reserve(config.listen, shared=True) as data_port:
        data = bound_address(data_port)
        control = _chosen(config.control.listen)
        http = _chosen(config.http)
        socket = _socket(config.control.state)
        supervisor = Supervisor(
            command("control", _control_arguments(settings, control, http, socket)),
            [
                command(f"proxy-{n}", _proxy_arguments(settings, data, socket or control))
                for n in range(settings.workers)
            ],
            settings.grace,
        )
        await supervisor.run(
            stop, lambda _: lifecycle.announce(data=data, control=control, http=http)
        )


def _chosen(address: str) -> str:
    """Return `address` with a real port: it must be the same when the process is restarted."""
    with reserve(address, shared=False) as held:
        return bound_address(held)


def _socket(state: Path) -> str:
    """Return a Unix socket's target in the state folder; "" where the path is too long for one."""
    path = os.fsencode(state.resolve() / "control.sock")
    return f"unix:{quote(path)}" if len(path) <= _SOCKET_PATH_MAX else ""


def _control_arguments(settings: RunSettings, control: str, http: str, socket: str) -> list[str]:
    return [
        *("control", "--config", str(settings.config_file), "--socket", socket),
        *("--listen", control, "--http", http, "--grace", f"{settings.grace.copies_s:.3f}s"),
    ]


def _proxy_arguments(settings: RunSettings, data: str, control: str) -> list[str]:
    return [
        *("proxy", "--control", control, "--listen", data, "--shared-port"),
        *("--state", str(settings.config.control.state)),
        *("--grace", f"{settings.grace.requests_s:.3f}s"),
    ]
