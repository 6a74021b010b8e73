"""The memory that requests take while their copies are on their way. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class _Held:
    copies: int
    size_bytes: int


class Room:
    """Bodies count once, however many copies share them; answers, until the last one is there.

    A request is known by a number of its own, such as `id`, while it is in here.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._held: dict[int, _Held] = {}

    def has(self, request_id: int, size_bytes: int) -> bool:
        """Return whether there is room for a copy of a request of that size."""
        return request_id in self._held or self.bytes + size_bytes <= self._bytes_max

    def enter(self, request_id: int, size_bytes: int) -> None:
        """Count one copy in."""
        held = self._held.get(request_id)
        if held is None:
            held = self._held[request_id] = _Held(0, size_bytes)
            self.bytes += size_bytes
        held.copies += 1

    def keep(self, request_id: int, size_bytes: int) -> bool:
        """Return whether an answer may be kept till the last one is there, and if so count it."""
        held = self._held[request_id]
        if held.copies == 1:
            return True
        if self.bytes + size_bytes > self._bytes_max:
            return False
        held.size_bytes += size_bytes
        self.bytes += size_bytes
        return True

    def leave(self, request_id: int) -> None:
        """Count one copy out."""
        held = self._held[request_id]
        held.copies -= 1
        if not held.copies:
            self.bytes -= held.size_bytes
            del self._held[request_id]
