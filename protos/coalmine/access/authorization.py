"""Who may call which method. The token of a call decides, before its message is read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import grpc
from grpc_health.v1 import health

from coalmine.access.tokens import Principal, Principals, Role, principal_for, read_tokens, token_in
from coalmine.clock import Clock
from coalmine.errors import CoalmineError, PermissionDenied
from coalmine.listener.reflection import SERVICE_V1, SERVICE_V1ALPHA
from coalmine.process.watched_files import Watched, follow
from coalmine.status import Context, abort

# Generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Metadata = Sequence[tuple[str, str | bytes]]

# By full method: what a caller has to be, at least; None: anybody.
Roles = Mapping[str, Role | None]
# Told of each call that is turned away: its full method, its context, and why.
Refused = Callable[[str, Context, CoalmineError], None]


def roles_for(role: Role | None, service: str, *methods: str) -> dict[str, Role | None]:
    """Return the role that `methods` of a service need, by full name."""
    return {f"/{service}/{method}": role for method in methods}


# What stands beside every service of ours. Kubernetes' probes can't show a token.
STANDARD: Final[Roles] = MappingProxyType(
    {
        **roles_for(None, health.SERVICE_NAME, "Check", "List", "Watch"),
        **roles_for(Role.VIEWER, SERVICE_V1ALPHA, "ServerReflectionInfo"),
        **roles_for(Role.VIEWER, SERVICE_V1, "ServerReflectionInfo"),
    }
)


class Authorization:
    """Checks the token of each call. A method without a role of its own needs `otherwise`."""

    def __init__(
        self,
        tokens: Watched[Principals],
        roles: Roles,
        clock: Clock,
        *,
        otherwise: Role = Role.OPERATOR,
    ) -> None:
        self._tokens = tokens
        self._roles = roles
        self._clock = clock
        self._otherwise = otherwise

    @classmethod
    def from_file(
        cls, file: Path, roles: Roles, clock: Clock, *, otherwise: Role = Role.OPERATOR
    ) -> "Authorization":
        """Return the authorization of those that `file` names. Raises StartError."""
        return cls(Watched([file], lambda: read_tokens(file)), roles, clock, otherwise=otherwise)

    def check(self, method: str, metadata: Metadata) -> None:
        """Return if the call may go on. Raises Unauthenticated, PermissionDenied."""
        needed = self._roles.get(method, self._otherwise)
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
        return principal_for(self._tokens.value, token_in(metadata), self._clock.wall_ns())

    async def follow_file(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        await follow(self._tokens)


# ---------------------------------------------------------------- in front of the methods


class AuthorizedMethods(grpc.GenericRpcHandler):
    """Methods behind a check, which comes before gRPC reads the request.

    Handlers are added to it as to a server. Refusals carry `trailing`.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        access: Authorization,
        refused: Refused,
        trailing: Metadata = (),
    ) -> None:
        self._access = access
        self._refused = refused
        self._trailing = tuple(trailing)
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
            return self._refusing_handler(method, error)
        for each in self._handlers:
            found: MaybeHandler = each.service(handler_call_details)
            if found is not None:
                return found
        return None

    def _refusing_handler(self, method: str, error: CoalmineError) -> Handler:
        async def refuse(_: Any, context: Context) -> None:
            self._refused(method, context, error)
            await abort(context, error, self._trailing)

        # Of this kind whatever the method's is: it reads no request before it answers.
        return grpc.stream_stream_rpc_method_handler(refuse)


def ignore_refusal(_method: str, _context: Context, _error: CoalmineError) -> None:
    """Do nothing about a refusal: only the caller hears of it."""
