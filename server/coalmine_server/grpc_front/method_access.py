"""What a caller of the server has to be, method by method, and which calls the log records."""

from types import MappingProxyType
from typing import Final

from coalmine.access.audit_log import Audit, Identify
from coalmine.access.authorization import STANDARD, Roles, roles_for
from coalmine.access.tokens import Role
from coalmine.clock import Clock
from coalmine.inference import SERVICE

# The methods that change what is served. Each call of them is recorded.
CHANGING: Final = ("RepositoryModelLoad", "RepositoryModelUnload")

# A method that isn't here takes an operator.
ROLES: Final[Roles] = MappingProxyType(
    {
        **STANDARD,
        **roles_for(None, SERVICE, "ServerLive"),
        **roles_for(Role.VIEWER, SERVICE, "ServerReady", "ModelReady"),
        **roles_for(Role.VIEWER, SERVICE, "ServerMetadata", "ModelMetadata", "ModelConfig"),
        **roles_for(Role.VIEWER, SERVICE, "ModelStatistics", "RepositoryIndex"),
        **roles_for(Role.CALLER, SERVICE, "ModelInfer", "ModelStreamInfer"),
        **roles_for(Role.OPERATOR, SERVICE, *CHANGING),
    }
)


def audit_of_changes(identify: Identify | None, clock: Clock) -> Audit:
    """Return what records the calls that change something, with the model that each names."""
    return Audit(SERVICE, CHANGING, fields={"model": "model_name"}, identify=identify, clock=clock)
