"""Which calls to a server are recorded: those that change what is served."""

from typing import Final

from coalmine.access.audit_log import Audit, Identify
from coalmine.clock import Clock
from coalmine.inference import SERVICE

METHODS: Final = ("RepositoryModelLoad", "RepositoryModelUnload")
ADMIN: Final = frozenset(f"/{SERVICE}/{method}" for method in METHODS)


def audit_of(identify: Identify | None, clock: Clock) -> Audit:
    """Return what records them, with the model that each names."""
    return Audit(SERVICE, METHODS, fields={"model": "model_name"}, identify=identify, clock=clock)
