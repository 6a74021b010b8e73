"""Where operators and proxies reach the control process, and who is let in there."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc

from coalmine.access.audit_log import Audit
from coalmine.access.authorization import (
    STANDARD,
    Authorization,
    AuthorizedMethods,
    Roles,
    roles_for,
)
from coalmine.access.listening import listen
from coalmine.access.target import is_local_target
from coalmine.access.tokens import Role
from coalmine.clock import Clock
from coalmine.control.v1 import control_pb2
from coalmine.errors import StartError
from coalmine.listener.decoded_methods import DecodedMethods
from coalmine.listener.health import Health
from coalmine.listener.reflection import ReflectedMethods, add_reflection, reflection_limit
from coalmine.process import lifecycle
from coalmine_router.channels import CONTROL_SERVER_OPTIONS
from coalmine_router.config.file import ControlConfig

_log = structlog.get_logger(__name__)

ROUTE_CONTROL: Final = "coalmine.control.v1.RouteControl"
_FEED: Final = "coalmine.control.v1.TableFeed"
_REPORTS: Final = "coalmine.control.v1.Reports"

# What takes an operator is recorded. GetMismatch is among them though it changes nothing: it shows
# what callers sent, to the last number.
OPERATORS: Final = ("SetWeights", "SetShadow", "GetMismatch")
ROLES: Final[Roles] = MappingProxyType(
    {
        **STANDARD,
        **roles_for(Role.VIEWER, ROUTE_CONTROL, "ListRoutes", "GetRoute", "WatchRoute"),
        **roles_for(Role.VIEWER, ROUTE_CONTROL, "GetHistory", "ListTrials", "ListMismatches"),
        **roles_for(Role.OPERATOR, ROUTE_CONTROL, *OPERATORS),
        **roles_for(Role.PROXY, _FEED, "Follow"),
        **roles_for(Role.PROXY, _REPORTS, "Send"),
    }
)

_REMEDY: Final = "give control.tls with cert and key"
_SOCKET_AGAIN_S: Final = 2.0
_PRIVATE: Final = 0o177

# Adds services to what answers at an address.
Offer = Callable[[ReflectedMethods], None]


class ControlListener:
    """The address that operators and proxies call; for proxies on this machine, a socket beside it.

    At the socket, which only this user can open, no token is asked for: so it offers nothing to
    operators, who would get round the tokens there. Raises StartError for wrong files.
    """

    def __init__(self, config: ControlConfig, socket: str, clock: Clock) -> None:
        self._config = config
        self._socket = socket
        self._access: Authorization | None = None
        if config.tokens is not None:
            self._access = Authorization.from_file(config.tokens, ROLES, clock)
        self.audit = Audit(
            ROUTE_CONTROL,
            OPERATORS,
            fields={"route": "route"},
            identify=None if self._access is None else self._access.principal,
            clock=clock,
        )
        self.health = Health()
        self._reflections = reflection_limit()
        self.limits = (self.health.limit, self._reflections)
        self._servers: list[grpc.aio.Server] = []
        self._proxies: Offer

    async def open(self, operators: Offer, proxies: Offer, *, needs_socket: bool = True) -> str:
        """Listen and answer with what these offer; return the address. Raises StartError.

        A socket that can't be made and isn't needed at once is made by `follow_socket`.
        """
        config = self._config
        server = self._make_server(guarded=True, offers=(operators, proxies, self._add_reflection))
        address = await listen(
            server,
            config.listen,
            None if config.tls is None else config.tls.files(),
            tokens=self._access is not None,
            remedy=_REMEDY,
        )
        advice = guard_advice(config)
        if advice:
            _log.warning("unguarded_listen", address=address, advice=advice)
        self._servers.append(server)
        self._proxies = proxies
        try:
            await self._open_socket()
        except StartError as error:
            if needs_socket:
                raise
            _log.error("socket_not_open", socket=self._socket, error=str(error))
        await server.start()
        return address

    async def follow_socket(self) -> None:
        """Make the socket wherever it is missing, until cancelled.

        It wasn't possible before, or somebody removed its file: who is connected stays so, but a
        proxy that is started couldn't come.
        """
        while True:
            await asyncio.sleep(_SOCKET_AGAIN_S)
            if self._lacks_socket():
                with contextlib.suppress(StartError):
                    await self._open_socket()
                    _log.info("socket_open", socket=self._socket)

    def _lacks_socket(self) -> bool:
        try:
            return bool(self._socket) and not _socket_file(self._socket).is_socket()
        except OSError:  # a disk in trouble tells nothing
            return False

    async def _open_socket(self) -> None:
        if self._socket:
            beside = self._make_server(guarded=False, offers=(self._proxies,))
            with _private_files():
                lifecycle.bind(beside, self._socket)
            await beside.start()
            self._servers.append(beside)

    async def follow_tokens(self) -> None:
        """Let in whom the file of tokens names by then, until cancelled."""
        if self._access is not None:
            await self._access.follow_file()

    async def close(self, grace_s: float) -> None:
        """Let what is in flight finish within the grace period, and end."""
        self._socket = ""  # another process may make it now
        main, *beside = self._servers
        async with asyncio.TaskGroup() as tasks:
            for each in beside:
                tasks.create_task(each.stop(grace_s))
            await lifecycle.drain(main, self.health, grace_s=grace_s)

    def _add_reflection(self, methods: ReflectedMethods) -> None:
        services = (ROUTE_CONTROL, _FEED, _REPORTS)
        add_reflection(methods, services, (control_pb2,), self._reflections)

    def _make_server(self, *, guarded: bool, offers: Sequence[Offer]) -> grpc.aio.Server:
        server = grpc.aio.server(options=list(CONTROL_SERVER_OPTIONS))
        methods: Any = server
        if guarded and self._access is not None:
            methods = AuthorizedMethods(server, self._access, self.audit.write_refusal)
        methods = DecodedMethods(methods)
        for offer in offers:
            offer(methods)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, methods)
        return server


def guard_advice(config: ControlConfig) -> str:
    """Return what to do where anybody on the network may steer the router; "": nothing.

    Without TLS, the advice on that says so already.
    """
    if is_local_target(config.listen) or config.tokens is not None:
        return ""
    if config.tls is None or config.tls.client_ca is not None:
        return ""
    return "anybody who reaches it may change the weights: give control.tokens"


def _socket_file(socket: str) -> Path:
    return Path(unquote(socket.removeprefix("unix:")))


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """Let files that are made in the block be this user's alone, from their first moment."""
    before = os.umask(_PRIVATE)
    try:
        yield
    finally:
        os.umask(before)
