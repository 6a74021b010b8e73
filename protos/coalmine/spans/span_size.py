"""How many bytes spans take in an OTLP request, without encoding them; and requests that fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

# Ids, times, kind, status and their tags.
_SPAN_BYTES: Final = 128
_EVENT_BYTES: Final = 24
_LINK_BYTES: Final = 48
# A key's and a value's tags and lengths; a number takes no more.
_PAIR_BYTES: Final = 24


def size_of(span: ReadableSpan) -> int:
    """Return about how many bytes a span takes: hardly less than it does, and not much more."""
    size = _SPAN_BYTES + _text_bytes(span.name) + _pairs_bytes(span.attributes)
    size += _text_bytes(span.status.description or "")
    for event in span.events:
        size += _EVENT_BYTES + _text_bytes(event.name) + _pairs_bytes(event.attributes)
    for link in span.links:
        size += _LINK_BYTES + _pairs_bytes(link.attributes)
    return size


def parts_of(spans: Sequence[ReadableSpan], bytes_max: int) -> Iterator[Sequence[ReadableSpan]]:
    """Yield the spans in parts of at most `bytes_max`; a span that alone has more is a part."""
    begin, size = 0, 0
    for at, span in enumerate(spans):
        more = size_of(span)
        if at > begin and size + more > bytes_max:
            yield spans[begin:at]
            begin, size = at, 0
        size += more
    if begin < len(spans):
        yield spans[begin:]


def _pairs_bytes(pairs: Mapping[str, Any] | None) -> int:
    return sum(
        _PAIR_BYTES + _text_bytes(key) + _value_bytes(value) for key, value in (pairs or {}).items()
    )


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return _text_bytes(value)
    if isinstance(value, list | tuple):
        return sum(_PAIR_BYTES + _value_bytes(each) for each in value)
    return len(value) if isinstance(value, bytes) else 0


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
