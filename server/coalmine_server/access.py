"""Who may call which method."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from coalmine.clock import Clock
from coalmine.errors import CoalmineError, PermissionDenied
from coalmine.inference import SERVICE
from coalmine.reflection import SERVICE_V1
from coalmine.status import Context, abort
from coalmine.tokens import Principal, Principals, Role, find, read_tokens, token_in
from coalmine.watched import Watched
from coalmine_server.audit import ADMIN, Audit
from coalmine_server.thread import in_thread

# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Metadata = Sequence[tuple[str, str | bytes]]

_LOOK_S: Final = 1.0


def _each(role: Role | None, service: str, *methods: str) -> dict[str, Role | None]:
    return {f"/{service}/{method}": role for method in methods}


# What a caller has to be, at least; None: anybody. A method that isn't here takes an operator.
ROLES: Final[Mapping[str, Role | None]] = MappingProxyType(
    {
        # Kubernetes' probes can't show a token.
        **_each(None, health.SERVICE_NAME, "Check", "List", "Watch"),
        **_each(None, SERVICE, "ServerLive"),
        **_each(Role.VIEWER, SERVICE, "ServerReady", "ModelReady"),
        **_each(Role.VIEWER, SERVICE, "ServerMetadata", "ModelMetadata", "ModelConfig"),
        **_each(Role.VIEWER, SERVICE, "ModelStatistics", "RepositoryIndex"),
        **_each(Role.VIEWER, reflection.SERVICE_NAME, "ServerReflectionInfo"),
        **_each(Role.VIEWER, SERVICE_V1, "ServerReflectionInfo"),
        **_each(Role.CALLER, SERVICE, "ModelInfer", "ModelStreamInfer"),
        **dict.fromkeys(ADMIN, Role.OPERATOR),
    }
)


class Access:
    """Lets calls in by the token that they show."""

    def __init__(self, tokens: Watched[Principals], clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    @classmethod
    def by(cls, file: Path, clock: Clock) -> "Access":
        """Return what lets in whom `file` names. Raises StartError."""
        return cls(Watched([file], lambda: read_tokens(file)), clock)

    def check(self, method: str, metadata: Metadata) -> None:
        """Return where the call may go on. Raises Unauthenticated, PermissionDenied."""
        needed = ROLES.get(method, Role.OPERATOR)
        if needed is None:
            return
        principal = self.principal(metadata)
        if principal.role < needed:
            name = method.rpartition("/")[2]
            raise PermissionDenied(
                f"{name} needs role {needed.word}, '{principal.name}' is {principal.role.word}"
            )

    def principal(self, metadata: Metadata) -> Principal:
        """Return who calls. Raises Unauthenticated."""
        return find(self._tokens.value, token_in(metadata), self._clock.wall_ns())

    async def follow(self) -> None:
        """Take what the file says whenever it is another, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await in_thread(self._tokens.look)


# ---------------------------------------------------------------- in front of the methods


class Guarded(grpc.GenericRpcHandler):
    """Methods behind a check, made before gRPC so much as reads the request.

    Handlers are added to it as to a server.
    """

    def __init__(self, server: grpc.aio.Server, access: Access, audit: Audit) -> None:
        self._access = access
        self._audit = audit
        self._handlers: list[grpc.GenericRpcHandler] = []
        server.add_generic_rpc_handlers((self,))

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Add handlers."""
        self._handlers.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Do nothing: gRPC would call these unchecked, and they are in the generic handlers too."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MaybeHandler:
        """Return what answers the call: its method, or a refusal."""
        method = handler_call_details.method
        try:
            self._access.check(method, handler_call_details.invocation_metadata)
        except CoalmineError as error:
            return self._refusal(method, error)
        for each in self._handlers:
            found: MaybeHandler = each.service(handler_call_details)
            if found is not None:
                return found
        return None

    def _refusal(self, method: str, error: CoalmineError) -> Handler:
        async def refuse(_: Any, context: Context) -> None:
            if method in ADMIN:
                self._audit.refused(method, context, error)
            await abort(context, error)

        # Of this kind whatever the method's is: it reads no request before it answers.
        return grpc.stream_stream_rpc_method_handler(refuse)
