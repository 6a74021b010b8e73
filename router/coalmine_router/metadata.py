"""Which metadata travels on through the router, and which is its own. Pure."""

from collections.abc import Iterable
from typing import Final

Pair = tuple[str, str | bytes]

# Hop-by-hop: each of these is made anew by the channel that a message leaves through.
_HOP_BY_HOP: Final = frozenset({"te", "content-type", "user-agent", "host"})
# What the router says in its answers: nobody else may say it in its name.
OWN: Final = "x-coalmine-"
# What a caller says of its request, to be kept with an example of it.
NOTE: Final = "x-coalmine-note"


def is_passed_on(key: str) -> bool:
    """Return whether metadata of this key is passed on to the other side."""
    return key not in _HOP_BY_HOP and not key.startswith(("grpc-", ":"))


def with_token(metadata: list[Pair], token_metadata: tuple[Pair, ...]) -> list[Pair]:
    """Return the metadata with what the router shows a backend, in the place of the caller's.

    Servers look at the first token of several: a caller's own would displace the router's.
    """
    keys = [key for key, _ in token_metadata]
    return [*(pair for pair in metadata if pair[0] not in keys), *token_metadata]


def unsendable_key(metadata: Iterable[Pair]) -> str:
    """Return the first key whose value gRPC takes from the wire but won't send; "" for none."""
    for key, value in metadata:
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            return key
    return ""


def answer_metadata(metadata: Iterable[Pair]) -> list[Pair]:
    """Return what a backend's metadata tells the caller."""
    return [pair for pair in metadata if is_passed_on(pair[0]) and not pair[0].startswith(OWN)]
