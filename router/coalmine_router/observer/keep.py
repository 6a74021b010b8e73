"""Whether the trace of a finished request is kept. Pure."""

from collections.abc import Iterable

from coalmine_router.observer.exchange import Found


def is_kept(
    *,
    is_sampled: bool,
    is_ok: bool,
    duration_ns: int,
    slow_over_ns: int | None,
    found: Iterable[Found] = (),
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


def _differs(found: Found) -> bool:
    return found.role != "noise" and found.comparison.outcome in {"mismatch", "error"}
