"""Texts as spans have them."""

from hypothesis import given
from hypothesis import strategies as st

from coalmine.spans.span_text import TEXT_BYTES_MAX, span_text


@given(st.text(st.characters(), max_size=3_000))
def test_no_text_is_over_two_kib_and_short_ones_are_whole(text: str) -> None:
    cut = span_text(text)
    assert len(cut.encode()) <= TEXT_BYTES_MAX
    encodable = text.encode(errors="replace").decode()
    assert encodable.startswith(cut)
    if len(encodable.encode()) <= TEXT_BYTES_MAX:
        assert cut == encodable
