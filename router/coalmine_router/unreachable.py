"""Why a connection can't be had, in words for people, from what gRPC says of it. Pure."""

from collections.abc import Mapping
from typing import Final

# What gRPC and BoringSSL say, and what it means. A longer text comes before its own beginning.
_MEANINGS: Final[Mapping[str, str]] = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not valid yet",
    "Hostname Verification Check failed": (
        "its certificate is for another name: `tls: {server_name: …}` says which to expect"
    ),
    "self signed certificate in certificate chain": (
        "its certificate is of another authority than those of `ca`"
    ),
    "self signed certificate": "its certificate is signed by itself, and `ca` does not have it",
    "unable to get local issuer certificate": (
        "the issuer of its certificate is not in `ca`: it is of another authority, "
        "or its file lacks the intermediate certificate"
    ),
    "certificate signature failure": (
        "its certificate is of another authority than the one of that name in `ca`"
    ),
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}
_CUT: Final = " … "


def why_unreachable(details: str, chars_max: int) -> str:
    """Return why a connection failed, in at most so many characters, from a call's details."""
    for said, meaning in _MEANINGS.items():
        if said in details:
            return cut_in_the_middle(meaning, chars_max)
    # gRPC says first that all addresses failed, of which there is one.
    return cut_in_the_middle(details.rpartition("last error: ")[2], chars_max)


def cut_in_the_middle(text: str, chars_max: int) -> str:
    """Return the text, or its beginning and its end: of errors, the end says what went wrong."""
    if len(text) <= chars_max:
        return text
    kept = chars_max - len(_CUT)
    end = kept * 2 // 3
    return f"{text[: kept - end]}{_CUT}{text[-end:]}"
