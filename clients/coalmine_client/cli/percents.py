"""Percents as people write them, and hundredths of a percent ("bp") as the wire has them. Pure."""

import math
from collections.abc import Iterable

from coalmine.command_line.failure import WrongUsage
from coalmine.shares import percent_bp


def parse_shares(texts: Iterable[str]) -> dict[str, int]:
    """Return the share of each variant in `NAME=PERCENT` texts. Raises WrongUsage."""
    shares: dict[str, int] = {}
    for text in texts:
        name, share_bp = parse_share(text)
        if name in shares:
            raise WrongUsage(f"'{name}' is given twice")
        shares[name] = share_bp
    return shares


def parse_share(text: str) -> tuple[str, int]:
    """Return name and bp of `NAME=PERCENT`, with or without the sign. Raises WrongUsage."""
    name, equals, percent = text.partition("=")
    if not name or not equals:
        raise WrongUsage(f"'{text}': expected NAME=PERCENT, such as canary=10")
    try:
        return name, percent_bp(percent)
    except ValueError as error:
        raise WrongUsage(f"'{text}': {error}") from None


def rate_text(part: int, whole: int) -> str:
    """Return `part` of `whole` as a percent with two decimals; a dash where there is no whole."""
    return share_text(part / whole) if whole else "-"


def share_text(of: float) -> str:
    """Return a share, -1 to 1, as a percent with two decimals.

    What is not zero is never shown as zero, and what is not all never as all.
    """
    sign, size = ("-" if of < 0 else ""), abs(of)
    if 0 < size < 0.00005:
        return f"{sign}<0.01%"
    if 0.99995 <= size < 1:
        return f"{sign}>99.99%"
    return f"{sign}{100 * size:.2f}%"


def interval_text(low: float, high: float) -> str:
    """Return the shares between which something lies: `1.90 to 4.80%`, outwards to two decimals."""
    # What a figure owes to its binary form is no width.
    lowest = math.floor(low * 10_000 + 1e-6) / 100
    highest = math.ceil(high * 10_000 - 1e-6) / 100
    return f"{lowest:.2f} to {highest:.2f}%"
