"""What a change of verdict is told with: counts, and the rate with its interval. Pure."""

from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.interval import rate_of
from coalmine_router.observer.evidence.settings import GateSettings
from coalmine_router.observer.evidence.verdict import Figures


def figures_of(evidence: Evidence, settings: GateSettings) -> Figures:
    """Return what the evidence comes to; no rate where no comparison was judged."""
    outcomes, shares = evidence.outcomes, evidence.shares
    rate = rate_of(shares, settings.alpha) if shares.requests else None
    return Figures(
        match=outcomes["match"],
        mismatch=outcomes["mismatch"],
        error=outcomes["error"],
        skipped=outcomes["skipped"],
        rate=rate.value if rate else None,
        rate_low=rate.low if rate else None,
        rate_high=rate.high if rate else None,
        allowed_rate=settings.max_mismatch_rate,
    )
