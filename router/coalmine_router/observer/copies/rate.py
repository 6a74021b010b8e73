"""At most so many calls a second, spread evenly. Pure."""

from typing import Final

# As many as come due in a tenth of a second may begin at once, and one always may. A bucket that
# held a whole second would take the first requests of each second and none of the others.
_BURST_NS: Final = 10**8


class CallRate:
    """A token bucket, kept as the moment by which the next call is due.

    Source: the generic cell rate algorithm, ITU-T I.371 annex A.
    """

    def __init__(self) -> None:
        self._due_ns = 0

    def take(self, now_ns: int, rps: float) -> bool:
        """Return whether a call may begin now, and if so count it. `rps` is above 0."""
        each_ns = int(10**9 / rps)
        early_ns = max(0, _BURST_NS - each_ns)
        # What was taken at a lower rate than today's is not waited for.
        self._due_ns = min(self._due_ns, now_ns + early_ns + each_ns)
        if self._due_ns > now_ns + early_ns:
            return False
        self._due_ns = max(self._due_ns, now_ns) + each_ns
        return True
