"""The retry budget: a share of all requests may be tried once more, so no storm begins. Pure."""

from typing import Final

_SECONDS: Final = 10
_ONE_IN: Final = 5
_LEAST: Final = 3


class RetryBudget:
    """Second attempts over ten seconds: a fifth of the requests, three at the least.

    Times are whole seconds of a monotonic clock.
    """

    __slots__ = ("_requests", "_retries", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._requests = [0] * _SECONDS
        self._retries = [0] * _SECONDS

    def count_request(self, second: int) -> None:
        """Count a request."""
        if second != self._second:
            self._forget_old_counts(second)
        self._requests[second % _SECONDS] += 1

    def has_retry_left(self, second: int) -> bool:
        """Return whether another second attempt is allowed now."""
        if second != self._second:
            self._forget_old_counts(second)
        return sum(self._retries) < max(_LEAST, sum(self._requests) // _ONE_IN)

    def take_retry(self, second: int) -> bool:
        """Take a second attempt from the budget; return whether there was one left."""
        if not self.has_retry_left(second):
            return False
        self._retries[second % _SECONDS] += 1
        return True

    def _forget_old_counts(self, second: int) -> None:
        """Forget counts that are ten seconds old by now."""
        for gone in range(max(self._second + 1, second - _SECONDS + 1), second + 1):
            self._requests[gone % _SECONDS] = self._retries[gone % _SECONDS] = 0
        self._second = second
