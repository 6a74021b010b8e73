"""Lines of what is printed in pieces, and how many of them are taken."""

from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine.process.printed_lines import (
    LINE_CHARS_MAX,
    LineCutter,
    LineRate,
    LineRates,
    shown_line,
)


def cut(pieces: list[str]) -> list[str]:
    cutter = LineCutter()
    lines = [line for piece in pieces for line in cutter.cut(piece)]
    return [*lines, *filter(None, [cutter.take_rest()])]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \n\r\t"), max_size=6), max_size=8))
def test_however_it_comes_in_pieces_the_lines_are_those_of_the_whole(pieces: list[str]) -> None:
    whole = "".join(pieces)
    assert cut(pieces) == [each for line in whole.split("\n") if (each := line.rstrip())]


def test_a_line_without_end_keeps_no_more_than_its_beginning() -> None:
    cutter = LineCutter()
    for _ in range(1000):
        assert cutter.cut("x" * 1000) == []
    (line,) = cutter.cut("\n")
    assert len(line) == LINE_CHARS_MAX + 1, "one more, so that it shows that it was cut"
    assert shown_line(line) == "x" * LINE_CHARS_MAX + "…"


def test_what_a_terminal_obeys_is_spelt_out_and_counts_with_that() -> None:
    assert shown_line("\x1b[31mred\r") == "\\x1b[31mred\\r"
    assert len(shown_line("\x1b" * LINE_CHARS_MAX)) == LINE_CHARS_MAX + 1


def test_a_burst_is_taken_and_then_ten_lines_a_second() -> None:
    rate = LineRate(0.0)
    assert sum(rate.take(0.0) for _ in range(1000)) == 200
    assert sum(rate.take(1.0) for _ in range(100)) == 10
    assert sum(rate.take(1000.0) for _ in range(1000)) == 200, "what isn't used adds up no further"


def test_lines_that_are_not_taken_are_counted_until_they_are_told() -> None:
    rate = LineRate(0.0)
    for _ in range(207):
        rate.take(0.0)
    assert (rate.take_dropped(), rate.take_dropped()) == (7, 0)


def test_each_that_prints_has_a_rate_of_its_own() -> None:
    rates = LineRates()
    taken = [rates.take("loud", 0.0) for _ in range(203)]
    assert (taken.count(True), rates.take("other", 0.0)) == (200, True)
    assert (rates.take_dropped(), rates.take_dropped()) == ({"loud": 3}, {})
