"""When a worker gives its place to another. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class WorkerBounds:
    """The greatest age and memory of a worker; 0: no bound."""

    age_s: float = 0.0
    resident_mib: int = 0

    @property
    def has_any(self) -> bool:
        """Whether there is a bound at all."""
        return self.age_s > 0 or self.resident_mib > 0

    def why_over(self, age_s: float, resident_mib: float) -> str:
        """Return why a worker is to be replaced; "" where it isn't."""
        if 0 < self.age_s < age_s:
            return f"it is older than {self.age_s:g} s"
        if 0 < self.resident_mib < resident_mib:
            return f"it holds {resident_mib:.0f} MiB of memory, over {self.resident_mib}"
        return ""


NO_BOUNDS: Final = WorkerBounds()
