"""Shares as people write them, and as hundredths of a percent ("bp"): exact both ways. Pure."""

from decimal import Context, Inexact, InvalidOperation, Overflow
from typing import Final

from coalmine.units import is_decimal

# Raises rather than rounds.
_EXACT: Final = Context(prec=12, traps=[Inexact, InvalidOperation, Overflow])


def percent_bp(value: object) -> int:
    """Return hundredths of a percent, 0 to 10,000, for a number or text such as 12.5 or "25%".

    Exact: a third decimal is refused. Raises ValueError.
    """
    text = str(value).strip().removesuffix("%")
    try:
        share = _EXACT.multiply(_EXACT.create_decimal(text), 100)
        is_share = is_decimal(text) and 0 <= share <= 10_000 and share == share.to_integral_value()
    except ArithmeticError:  # not a number, or one with more digits than a share has
        is_share = False
    if isinstance(value, bool) or not is_share:
        raise ValueError(
            f"expected a percentage from 0 to 100, two decimals at most, got {value!s:.100}"
        )
    return int(share)


def percent(share_bp: int) -> str:
    """Return a share without needless zeros: 2500 -> 25%, 1 -> 0.01%."""
    whole, hundredths = divmod(share_bp, 100)
    decimals = f".{hundredths:02d}".rstrip("0") if hundredths else ""
    return f"{whole}{decimals}%"
