"""How much is in flight, and whether one more may be. Pure."""

from coalmine.errors import CoalmineError, Overloaded, Unavailable
from coalmine_router.table import Limits


class TurnedAway(Overloaded):
    """Too much is in flight; `reason` is the limit that is reached."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class NotReached(Unavailable):
    """Nobody can be called: of the backend, no address is known."""


def reason_of(error: CoalmineError) -> str:
    """Return why a request was turned away, as counts have it; "" where the request was wrong."""
    if isinstance(error, TurnedAway):
        return error.reason
    return "not_ready" if isinstance(error, NotReached) else ""


class Admission:
    """Requests and bytes in flight, of a route or of the whole proxy, and their limits."""

    __slots__ = ("bytes", "in_flight", "limits", "of")

    def __init__(self, of: str, limits: Limits) -> None:
        self.of = of
        self.limits = limits
        self.in_flight = 0
        self.bytes = 0

    def admit(self, size: int) -> None:
        """Let a request of `size` bytes in, until `release`. Raises TurnedAway."""
        limits = self.limits
        if limits.in_flight_max and self.in_flight >= limits.in_flight_max:
            most = f"{limits.in_flight_max} requests are in flight, the most allowed"
            raise TurnedAway("in_flight", f"{self.of}: {most}")
        if limits.bytes_max and self.bytes + size > limits.bytes_max:
            most = f"requests in flight hold {self.bytes} bytes, {limits.bytes_max} are allowed"
            raise TurnedAway("bytes", f"{self.of}: {most}; this one has {size}")
        self.in_flight += 1
        self.bytes += size

    def release(self, size: int) -> None:
        """Take out a request that was let in."""
        self.in_flight -= 1
        self.bytes -= size
