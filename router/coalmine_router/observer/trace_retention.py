"""Whether the trace of a finished request is kept. Pure."""

from collections.abc import Iterable
from typing import Final

from coalmine_router.observer.observed_request import PairResult

_REFUSAL_EVERY_NS: Final = 10**9


def is_kept(
    *,
    is_sampled: bool,
    is_ok: bool,
    duration_ns: int,
    slow_over_ns: int | None,
    found: Iterable[PairResult] = (),
    tipped: bool = False,
) -> bool:
    """Return whether to keep it: the head said so, or what happened is worth a look.

    That is a failed call, be it one that another made good, a request slower than the route's
    threshold, a mismatch or an error of a candidate, and a request that tipped a verdict. That the
    reference differs from itself is no reason: a model that always does would have all its noise
    kept, and evidence counts it anyway.
    """
    if is_sampled or tipped or not is_ok:
        return True
    if slow_over_ns is not None and duration_ns > slow_over_ns:
        return True
    return any(map(_differs, found))


class RefusalTraces:
    """One trace a second of requests that were refused before they had a route; counts the others.

    No caller may fill the store by asking for what there isn't.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._next_ns = 0

    def admit(self, now_ns: int) -> bool:
        """Return whether one more may leave a trace at this time; count it where not."""
        if now_ns < self._next_ns:
            self.left_out += 1
            return False
        self._next_ns = now_ns + _REFUSAL_EVERY_NS
        return True


def _differs(found: PairResult) -> bool:
    return found.role != "noise" and found.comparison.outcome in {"mismatch", "error"}
