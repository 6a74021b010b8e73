"""Texts in spans, as long as they may be: names, ids and messages may be a caller's. Pure."""

from typing import Final

TEXT_BYTES_MAX: Final = 2_048


def span_text(text: str) -> str:
    """Return the text, cut to 2 KiB of UTF-8, between characters; half a surrogate pair is a `?`.

    One that can't be encoded would fail the export of its whole batch.
    """
    if len(text) <= TEXT_BYTES_MAX and text.isascii():
        return text
    return text.encode(errors="replace")[:TEXT_BYTES_MAX].decode(errors="ignore")
