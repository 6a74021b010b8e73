"""Whether the trace of a finished request is kept. Pure."""

from collections.abc import Iterable

from coalmine_router.observer.compare import Outcome


def is_kept(
    *,
    is_sampled: bool,
    is_ok: bool,
    duration_ns: int,
    slow_over_ns: int | None,
    outcomes: Iterable[Outcome],
) -> bool:
    """Return whether to keep it: the head said so, or what happened is worth a look.

    That is a failed call, be it one that another made good, a request slower than the route's
    threshold, a mismatch, or a failed candidate.
    """
    if is_sampled or not is_ok:
        return True
    if slow_over_ns is not None and duration_ns > slow_over_ns:
        return True
    return any(outcome in {"mismatch", "error"} for outcome in outcomes)
