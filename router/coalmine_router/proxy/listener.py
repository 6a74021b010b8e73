"""The data port's listener: who may call, and the services that it offers beside the routes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from coalmine.access.authorization import (
    STANDARD,
    Authorization,
    AuthorizedMethods,
    Roles,
    ignore_refusal,
    roles_for,
)
from coalmine.access.listening import listen
from coalmine.access.tls_files import TlsFiles
from coalmine.access.tokens import Role
from coalmine.clock import Clock
from coalmine.inference import SERVICE, inference_pb2
from coalmine.limits import (
    FLOOD_LIMITS,
    MESSAGE_LIMITS,
    METADATA_BYTES_DEFAULT,
    PING_LIMITS,
    metadata_limits,
)
from coalmine.listener.decoded_methods import DecodedMethods
from coalmine.listener.health import Health
from coalmine.listener.reflection import add_reflection, reflection_limit
from coalmine.process import lifecycle
from coalmine.process.answer_gate import AnswerGate
from coalmine.telemetry import ORIGIN_KEY, ORIGIN_ROUTER

# Any other method belongs to a route, and needs the role of a caller.
ROLES: Final[Roles] = MappingProxyType(
    {
        **STANDARD,
        **roles_for(None, SERVICE, "ServerLive"),
        **roles_for(Role.VIEWER, SERVICE, "ServerReady", "ServerMetadata", "ModelReady"),
        **roles_for(Role.VIEWER, SERVICE, "ModelMetadata", "ModelConfig", "ModelStatistics"),
        **roles_for(Role.VIEWER, SERVICE, "RepositoryIndex"),
    }
)

# The router adds this to a request: trace context, its own user agent, a token for the backend.
_ADDED_BYTES: Final = 1_024
METADATA_BYTES_MAX: Final = METADATA_BYTES_DEFAULT - _ADDED_BYTES

_CONNECTION_AGE_MS: Final = 5 * 60 * 1_000
DATA_SERVER_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    *MESSAGE_LIMITS,
    *FLOOD_LIMITS,
    *PING_LIMITS,
    # A backend must take all metadata that the router takes, and what the router adds.
    *metadata_limits(METADATA_BYTES_MAX),
    # Proxies share the port by connection, not by call. So connections must move now and then.
    ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
)
_REMEDY: Final = "give tls with cert and key"


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where callers reach a proxy, and who may call. `shared`: other proxies listen there too."""

    listen: str
    shared: bool = False
    tls: TlsFiles | None = None
    tokens: Path | None = None


class DataListener:
    """The server that callers reach. Raises StartError for a wrong file of tokens."""

    def __init__(
        self, settings: ListenerSettings, routes: grpc.GenericRpcHandler, clock: Clock
    ) -> None:
        self._settings = settings
        self._access: Authorization | None = None
        if settings.tokens is not None:
            self._access = Authorization.from_file(
                settings.tokens, ROLES, clock, otherwise=Role.CALLER
            )
        self.health = Health()
        self._reflections = reflection_limit()
        self.limits = (self.health.limit, self._reflections)
        self._server = self._make_server(routes)

    async def open(self) -> str:
        """Listen and answer; return the address. Raises StartError."""
        settings = self._settings
        address = await listen(
            self._server,
            settings.listen,
            settings.tls,
            tokens=self._access is not None,
            remedy=_REMEDY,
            shared=settings.shared,
        )
        await self._server.start()
        for service in ("", SERVICE):
            await lifecycle.set_serving(self.health, service, serving=True)
        return address

    async def close(self, grace_s: float, gate: AnswerGate, refuse: Callable[[], None]) -> None:
        """Let calls in flight finish within the grace period, as `lifecycle.drain` does."""
        await lifecycle.drain(self._server, self.health, grace_s=grace_s, gate=gate, refuse=refuse)

    async def follow_tokens(self) -> None:
        """Follow the file of tokens, until cancelled."""
        if self._access is not None:
            await self._access.follow_file()

    def _make_server(self, routes: grpc.GenericRpcHandler) -> grpc.aio.Server:
        server = grpc.aio.server(options=list(DATA_SERVER_OPTIONS))
        methods: Any = server
        if self._access is not None:
            methods = AuthorizedMethods(
                server, self._access, ignore_refusal, ((ORIGIN_KEY, ORIGIN_ROUTER),)
            )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, DecodedMethods(methods))
        add_reflection(methods, (SERVICE,), (inference_pb2,), self._reflections)
        # This handler comes last: a route by service may match any name.
        methods.add_generic_rpc_handlers((routes,))
        return server
