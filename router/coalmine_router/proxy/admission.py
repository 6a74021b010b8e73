"""Counts the requests in flight, and decides whether one more may come in. Pure."""

from collections.abc import Sequence
from types import TracebackType

from coalmine.errors import CoalmineError, Overloaded, Unavailable
from coalmine_router.table import Limits


class TurnedAway(Overloaded):
    """Too much is in flight. `reason` is the limit that was reached."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class NotReached(Unavailable):
    """The router knows no address of the backend."""


def turned_away_reason(error: CoalmineError) -> str:
    """Return why a request was turned away, as counts name it; "" where the request was wrong."""
    if isinstance(error, TurnedAway):
        return error.reason
    return "not_ready" if isinstance(error, NotReached) else ""


class Admission:
    """Requests and bytes in flight, of a route or of the whole proxy, and their limits.

    `unread_bytes` is the part of the bytes in messages that their receiver has yet to read.
    """

    __slots__ = ("bytes", "in_flight", "limits", "of", "unread_bytes")

    def __init__(self, of: str, limits: Limits) -> None:
        self.of = of
        self.limits = limits
        self.in_flight = 0
        self.bytes = 0
        self.unread_bytes = 0

    def admit(self, size: int) -> None:
        """Admit a request of `size` bytes, until `release`. Raises TurnedAway."""
        limits = self.limits
        if limits.in_flight_max and self.in_flight >= limits.in_flight_max:
            most = f"{limits.in_flight_max} requests are in flight, the most allowed"
            raise TurnedAway("in_flight", f"{self.of}: {most}")
        if limits.bytes_max and self.bytes + size > limits.bytes_max:
            raise TurnedAway("bytes", f"{self._full_text()}; this one has {size}")
        self.in_flight += 1
        self.bytes += size

    def release(self, size: int) -> None:
        """Stop counting an admitted request."""
        self.in_flight -= 1
        self.bytes -= size

    def check_message(self, size: int) -> None:
        """Raise TurnedAway where a message to pass on doesn't fit beside others that are unread.

        The size of an answer isn't known before. So an answer without others beside it always fits.
        """
        most = self.limits.bytes_max
        if most and self.unread_bytes and self.bytes + size > most:
            raise TurnedAway("bytes", f"{self._full_text()}; this message takes {size}")

    def count_unread(self, size: int) -> None:
        """Count `size` more bytes, or fewer, that their receiver has yet to read."""
        self.bytes += size
        self.unread_bytes += size

    def _full_text(self) -> str:
        usage = f"requests and unread answers in flight hold {self.bytes} bytes"
        return f"{self.of}: {usage}, {self.limits.bytes_max} are allowed"


class UnreadMessage:
    """A message that was passed on, counted until `release`. Raises TurnedAway.

    `beside` is the size of the request that it answers, which stays in memory as long.
    """

    __slots__ = ("_admissions", "_size")

    def __init__(self, size: int, admissions: Sequence[Admission], *, beside: int = 0) -> None:
        for each in admissions:
            each.check_message(size)
        self._size = size + beside
        self._admissions = admissions
        self._count_unread(self._size)

    def release(self, _context: object = None) -> None:
        """Stop counting it: it was read, or its reader is gone."""
        self._count_unread(-self._size)

    def _count_unread(self, size: int) -> None:
        for each in self._admissions:
            each.count_unread(size)

    def __enter__(self) -> None:
        """Count it while the block runs."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
