"""Options that take numbers, written in ASCII digits as people write them.

Python's own int() and float() take more: other scripts' digits, signs, underscores, 1e1 and 099.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import typer

from coalmine.errors import StartError
from coalmine.shown_value import short_repr
from coalmine.units import duration_ns, is_decimal, is_whole

# What fits a message's field, and a database's column.
_WHOLE_MAX: Final = 2**63 - 1
_CHARS_MAX: Final = 20
_FORM: Final = "in the digits 0 to 9, without sign, exponent or zeros in front"


# min and max: typer's own words for the bounds.
def whole_option(*names: str, min: int = 0, max: int | None = None, **said: Any) -> Any:  # noqa: A002
    """Return an option for a whole number from `min` to `max`; `said` is typer's."""
    wanted = f"a whole number from {min} {'on' if max is None else f'to {max}'}"
    most = _WHOLE_MAX if max is None else max

    def parse_whole(value: Any) -> int:
        return int(_check_number_text(value, is_whole, (min, most), wanted))

    return typer.Option(*names, min=min, max=max, parser=parse_whole, **said)


def decimal_option(*names: str, min: float, **said: Any) -> Any:  # noqa: A002
    """Return an option for a number from `min` on; `said` is typer's."""
    wanted, most = f"a number from {min} on", _WHOLE_MAX

    def parse_decimal(value: Any) -> float:
        return float(_check_number_text(value, is_decimal, (min, most), wanted))

    return typer.Option(*names, min=min, parser=parse_decimal, **said)


def duration_s(option: str, text: str) -> float:
    """Return the seconds that the text of an option means, such as 200ms. Raises StartError."""
    try:
        return duration_ns(text) / 1e9
    except ValueError as error:
        raise StartError(f"{option}: {error}") from None


def _check_number_text(
    text: Any, is_one: Callable[[str], bool], bounds: tuple[float, float], wanted: str
) -> Any:
    """Return the text if it is such a number. Raises typer.BadParameter."""
    if not isinstance(text, str):  # a default
        return text
    if not is_one(text):
        raise typer.BadParameter(f"expected {wanted}, {_FORM}, got {short_repr(text)}")
    if len(text) > _CHARS_MAX or not bounds[0] <= Decimal(text) <= bounds[1]:
        raise typer.BadParameter(f"expected {wanted}, got {short_repr(text)}")
    return text
