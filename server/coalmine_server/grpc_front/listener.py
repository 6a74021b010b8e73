"""The gRPC listeners of a server, their options, and the services that each offers."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from coalmine.access.audit_log import AuditedServicer
from coalmine.access.authorization import Authorization, AuthorizedMethods
from coalmine.access.listening import OPTIONS_REMEDY, listen
from coalmine.clock import Clock
from coalmine.inference import SERVICE, inference_pb2
from coalmine.limits import FLOOD_LIMITS, PING_LIMITS, message_limits
from coalmine.listener.decoded_methods import DecodedMethods
from coalmine.listener.health import Health
from coalmine.listener.reflection import add_reflection, reflection_limit
from coalmine.process import lifecycle
from coalmine.process.answer_gate import AnswerGate
from coalmine_server.config import ServerConfig
from coalmine_server.grpc_front.handlers import generic_handler_of
from coalmine_server.grpc_front.method_access import audit_of_changes
from coalmine_server.grpc_front.servicer import Servicer

_PING_TIMEOUT_MS: Final = 20_000


class ServerListener:
    """The gRPC server that callers reach, and a second one where admin calls have their own."""

    def __init__(
        self,
        config: ServerConfig,
        health: Health,
        main: Servicer,
        admin: Servicer | None,
        *,
        access: Authorization | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self._health = health
        self._reflections = reflection_limit()
        self.limits = (health.limit, self._reflections)
        self._access = access
        self._audit = audit_of_changes(None if access is None else access.principal, clock)
        self._main = self._build_server(main)
        self._admin = None if admin is None else self._build_server(admin)

    async def open(self) -> dict[str, str]:
        """Listen and answer; return the listeners' addresses by name. Raises StartError."""
        config = self._config
        addresses = {"grpc": await self._listen(self._main, config.listen)}
        if self._admin is not None and config.admin_listen is not None:
            addresses["admin"] = await self._listen(self._admin, config.admin_listen)
        for server in self._servers():
            await server.start()
        return addresses

    async def close(self, gate: AnswerGate, refuse: Callable[[], None]) -> None:
        """Let what is in flight finish within the grace period, and end.

        `gate` has the services keep their answers back; `refuse` has them take no more.
        """
        grace_s = self._config.grace_s
        async with asyncio.TaskGroup() as tasks:
            if self._admin is not None:
                tasks.create_task(self._admin.stop(grace_s))
            await lifecycle.drain(
                self._main, self._health, grace_s=grace_s, gate=gate, refuse=refuse
            )

    def _servers(self) -> list[grpc.aio.Server]:
        return [self._main] if self._admin is None else [self._main, self._admin]

    def _build_server(self, servicer: Servicer) -> grpc.aio.Server:
        server = grpc.aio.server(options=options_of(self._config))
        access, audit = self._access, self._audit
        methods = (
            server if access is None else AuthorizedMethods(server, access, audit.write_refusal)
        )
        methods.add_generic_rpc_handlers((generic_handler_of(AuditedServicer(servicer, audit)),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, DecodedMethods(methods))
        add_reflection(methods, (SERVICE,), (inference_pb2,), self._reflections)
        return server

    async def _listen(self, server: grpc.aio.Server, address: str) -> str:
        config = self._config
        return await listen(
            server,
            address,
            config.tls,
            tokens=self._access is not None,
            remedy=OPTIONS_REMEDY,
            shared=config.has_supervisor,
        )


def options_of(config: ServerConfig) -> tuple[tuple[str, Any], ...]:
    """Return a server's gRPC options, from its limits and connections."""
    connections = config.connections
    options: list[tuple[str, Any]] = [
        *message_limits(config.bounds.message_bytes),
        *FLOOD_LIMITS,
        *PING_LIMITS,
        ("grpc.so_reuseport", int(config.has_supervisor)),  # else a second server takes half
    ]
    if connections.keepalive_s:
        options += [
            ("grpc.keepalive_time_ms", int(connections.keepalive_s * 1e3)),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ]
    if connections.age_s:
        options.append(("grpc.max_connection_age_ms", int(connections.age_s * 1e3)))
    return tuple(options)
