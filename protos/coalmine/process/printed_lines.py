"""Printed text as lines, bounded in length and in number. Pure."""

from typing import Final

from coalmine.shown_value import printable

LINE_CHARS_MAX: Final = 2_000
_BURST: Final = 200
_PER_SECOND: Final = 10.0


class LineCutter:
    """Makes lines from pieces of text. It keeps no more than the beginning of one line."""

    def __init__(self) -> None:
        self._rest = ""

    @property
    def is_empty(self) -> bool:
        """Whether no line has begun."""
        return not self._rest

    def cut(self, text: str) -> list[str]:
        """Take `text` in; return the lines that end in it, without those that show nothing."""
        first, *others = text.split("\n")
        self._append(first)
        lines = []
        for each in others:
            lines.append(self.take_rest())
            self._append(each)
        return [line for line in lines if line]

    def take_rest(self) -> str:
        """Give up, and return, what has come of a line so far."""
        line, self._rest = self._rest.rstrip(), ""
        return line

    def _append(self, part: str) -> None:
        self._rest = (self._rest + part[: LINE_CHARS_MAX + 1])[: LINE_CHARS_MAX + 1]


def shown_line(line: str) -> str:
    """Return a line with what a terminal would obey spelt out, cut where it is too long."""
    shown = printable(line)
    return shown if len(shown) <= LINE_CHARS_MAX else f"{shown[:LINE_CHARS_MAX]}…"


class LineRate:
    """A bound on lines: 200 at once, and 10 a second in the long run."""

    def __init__(self, now_s: float) -> None:
        self._room = float(_BURST)
        self._at_s = now_s
        self._dropped = 0

    def take(self, now_s: float) -> bool:
        """Take a line where there is room for it; return whether there was."""
        self._room = min(_BURST, self._room + (now_s - self._at_s) * _PER_SECOND)
        self._at_s = now_s
        if self._room < 1.0:
            self._dropped += 1
            return False
        self._room -= 1.0
        return True

    def take_dropped(self) -> int:
        """Return how many lines were not taken since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped


class LineRates:
    """A LineRate for each name that prints, so that a flood of one costs no line of another."""

    def __init__(self) -> None:
        self._rates: dict[str, LineRate] = {}  # at most one for each model there ever was

    def take(self, name: str, now_s: float) -> bool:
        """Take a line where there is room for it; return whether there was."""
        return self._rates.setdefault(name, LineRate(now_s)).take(now_s)

    def take_dropped(self) -> dict[str, int]:
        """Return how many lines of each name were not taken since the last call."""
        dropped = {name: rate.take_dropped() for name, rate in self._rates.items()}
        return {name: lines for name, lines in dropped.items() if lines}
