"""What one side has more of than another, request by request. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Differences:
    """d in [-1, 1], one a moment of requests that have both: what the candidate has more of.

    Each is split between the whole numbers beside it, with its mean kept: what a test by counts
    says of those is never bolder than what it would say of d itself.
    """

    worse: float = 0.0
    same: float = 0.0
    better: float = 0.0

    @property
    def requests(self) -> int:
        """How many requests were counted."""
        return round(self.worse + self.same + self.better)

    @property
    def mean(self) -> float:
        """The mean of d; 0 where there is none."""
        total = self.worse + self.same + self.better
        return (self.worse - self.better) / total if total else 0.0

    def add(self, difference: float) -> None:
        """Count one request."""
        self.worse += max(difference, 0.0)
        self.better += max(-difference, 0.0)
        self.same += 1.0 - abs(difference)
