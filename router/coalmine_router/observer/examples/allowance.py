"""A budget for writes to a disk: a rate, with a burst after a pause. Pure."""


class Allowance:
    """A token bucket that fills by `a_second`, up to `burst`.

    A cost above what is left is owed, up to `owed_max`; until it is paid back, nothing is left.
    """

    def __init__(self, a_second: float, burst: float, now_ns: int, *, owed_max: float) -> None:
        self._a_second = a_second
        self._burst = burst
        self._owed_max = owed_max
        self._left = burst
        self._at_ns = now_ns

    def refill(self, now_ns: int) -> None:
        """Add what came in since the last call."""
        passed_s = (now_ns - self._at_ns) / 1e9
        self._at_ns = now_ns
        self._left = min(self._burst, self._left + passed_s * self._a_second)

    def has_some(self) -> bool:
        """Return whether there is anything left."""
        return self._left > 0

    def has_all(self) -> bool:
        """Return whether the bucket is full."""
        return self._left >= self._burst

    def spend(self, cost: float) -> None:
        """Take a cost from what is left."""
        self._left = max(self._left - cost, -self._owed_max)
