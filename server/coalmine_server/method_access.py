"""What a caller of the server has to be, method by method."""

from types import MappingProxyType
from typing import Final

from coalmine.access.authorization import STANDARD, Roles, needing
from coalmine.access.tokens import Role
from coalmine.inference import SERVICE
from coalmine_server.audit import ADMIN

# A method that isn't here takes an operator.
ROLES: Final[Roles] = MappingProxyType(
    {
        **STANDARD,
        **needing(None, SERVICE, "ServerLive"),
        **needing(Role.VIEWER, SERVICE, "ServerReady", "ModelReady"),
        **needing(Role.VIEWER, SERVICE, "ServerMetadata", "ModelMetadata", "ModelConfig"),
        **needing(Role.VIEWER, SERVICE, "ModelStatistics", "RepositoryIndex"),
        **needing(Role.CALLER, SERVICE, "ModelInfer", "ModelStreamInfer"),
        **dict.fromkeys(ADMIN, Role.OPERATOR),
    }
)
