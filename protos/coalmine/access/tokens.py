"""Tokens say who calls, and in which role. Only their hashes are on disk."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints, model_validator

from coalmine.access.tls_files import AUTHORIZATION
from coalmine.errors import Unauthenticated
from coalmine.process.config_file import Strict, load

TOKENS_MAX: Final = 10_000
# Tells a token from other texts: for whoever finds one where it shouldn't be.
_MARK: Final = "cm_"
_SCHEME: Final = "bearer "


class Role(IntEnum):
    """What the holder of a token may do: all that the roles below may, and more."""

    VIEWER = 1  # sees what is served, and how it fares
    CALLER = 2  # calls models
    PROXY = 3  # a router's proxy: follows the route table, and reports what it served
    OPERATOR = 4  # changes what is served

    @property
    def word(self) -> str:
        """The role as files and messages have it."""
        return self.name.lower()


def role_of(value: object) -> Role:
    """Return the role of that name. Raises ValueError."""
    for role in Role:
        if value == role.word:
            return role
    raise ValueError(f"expected one of {', '.join(role.word for role in Role)}, got {value!r:.100}")


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a token. `expires_ns` is a time since the epoch."""

    name: str
    role: Role
    expires_ns: int | None = None


# From the SHA-256 of a token, so that how long a search takes tells nothing about a token.
Principals = Mapping[bytes, Principal]

# ---------------------------------------------------------------- the file


class TokenEntry(Strict):
    """One token, without the token."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@-]{1,128}$")]
    role: Annotated[Role, BeforeValidator(role_of)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    expires: AwareDatetime | None = None

    def principal(self) -> Principal:
        """Return who shows this token."""
        ends_ns = None if self.expires is None else int(self.expires.timestamp()) * 10**9
        return Principal(self.name, self.role, ends_ns)


class TokenFile(Strict):
    """A file of tokens."""

    tokens: Annotated[tuple[TokenEntry, ...], Field(max_length=TOKENS_MAX)]

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        for what in ("name", "sha256"):
            seen: set[str] = set()
            for entry in self.tokens:
                value = getattr(entry, what)
                if value in seen:
                    raise ValueError(f"tokens: {what} '{value}' is there twice")
                seen.add(value)
        return self


def read_tokens(path: Path) -> Principals:
    """Return the principals of a token file, by token hash. Raises StartError."""
    entries = load(path, TokenFile).tokens
    return {bytes.fromhex(each.sha256): each.principal() for each in entries}


# ---------------------------------------------------------------- a call


def token_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the token that a call's metadata shows. Raises Unauthenticated."""
    for key, value in metadata:
        if key == AUTHORIZATION:
            if isinstance(value, str) and value[: len(_SCHEME)].lower() == _SCHEME:
                return value[len(_SCHEME) :].strip()
            raise Unauthenticated("authorization: expected 'Bearer TOKEN'")
    raise Unauthenticated("a token is needed: metadata 'authorization: Bearer TOKEN'")


def principal_for(principals: Principals, token: str, now_ns: int) -> Principal:
    """Return who shows `token` at `now_ns` since the epoch. Raises Unauthenticated."""
    principal = principals.get(token_digest(token))
    if principal is None:
        raise Unauthenticated("the token is not known here")
    if principal.expires_ns is not None and principal.expires_ns <= now_ns:
        raise Unauthenticated(f"the token of '{principal.name}' has expired")
    return principal


def token_digest(token: str) -> bytes:
    """Return the SHA-256 of a token. It is random and long, so no salt or slow hash is needed."""
    return hashlib.sha256(token.encode()).digest()


def new_token() -> str:
    """Return a token that nobody has: 256 random bits."""
    return _MARK + secrets.token_urlsafe(32)
