"""What spans are called."""

import pytest

from coalmine.spans.span_names import (
    NAME_CHARS_MAX,
    call_name,
    compare_name,
    span_name,
    verdict_name,
)


def test_names_say_who_is_who() -> None:
    assert call_name("shadow", "broken") == "shadow broken"
    assert compare_name("broken", "mismatch") == "compare broken: mismatch"
    assert verdict_name("broken", "fail") == "verdict broken: fail"


def test_a_long_name_is_cut_and_keeps_the_outcome_at_its_end() -> None:
    name = compare_name("v" * 200, "mismatch")
    assert len(name) == NAME_CHARS_MAX
    assert name.startswith("compare vvv")
    assert name.endswith("v: mismatch")


@pytest.mark.parametrize("name", [call_name("shadow", "v" * 200), span_name("m" * 200)])
def test_no_name_is_longer_than_128_characters(name: str) -> None:
    assert len(name) == NAME_CHARS_MAX
