"""Figures of a verdict in words, for whoever is on call. Pure."""

from typing import Final

from coalmine_router.observer.evidence.interval import Rate

# What sums of fractions may be off by.
_ROUNDED: Final = 1e-6


def percent(rate: float) -> str:
    """Return a rate with two digits that count: 0.0312 -> 3.1 %, 0.00042 -> 0.042 %."""
    share = abs(rate) * 100.0
    if share >= 10.0:
        text = f"{share:.1f}".removesuffix(".0")
    else:
        text = f"{share:.2g}" if share >= 1e-4 else f"{share:.0f}"
    return f"{'-' if rate < 0 and text != '0' else ''}{text} %"


def count_text(number: float) -> str:
    """Return a number of things: 12,345, and 6.2 of what is expected."""
    is_whole = abs(number - round(number)) < _ROUNDED
    return f"{number:,.0f}" if is_whole or number >= 100 else f"{number:.1f}"


def duration_text(duration_ns: int) -> str:
    """Return a time as a file has it: 10m, 90s, 1.5s."""
    for unit, name in ((3_600, "h"), (60, "m")):
        if duration_ns % (unit * 10**9) == 0:
            return f"{duration_ns // (unit * 10**9):,}{name}"
    return f"{duration_ns / 10**9:g}s"


def interval_text(rate: Rate) -> str:
    """Return the interval: (1.9 % to 4.8 %)."""
    return f"({percent(rate.low)} to {percent(rate.high)})"
