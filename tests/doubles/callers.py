"""Callers with tokens, and what each is answered with."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc

from coalmine.access.tokens import token_digest

TOKENS = {role: f"{role}-secret" for role in ("viewer", "caller", "proxy", "operator")}


def write_tokens(path: Path, *roles: str) -> Path:
    """Write a file that knows these roles' tokens; each is named ROLE-1."""
    entries = [
        f'- {{name: {role}-1, role: {role}, sha256: "{token_digest(TOKENS[role]).hex()}"}}\n'
        for role in roles
    ]
    whole = path.with_name(f"{path.name}.new")
    whole.write_text("tokens:\n" + "".join(entries) if entries else "tokens: []\n")
    return whole.replace(path)


def bearer(role: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {TOKENS.get(role, role)}"),)


async def outcome(call: Awaitable[Any]) -> str:
    """Return the name of the status that a call ends with."""
    return (await refusal(call))[0]


async def refusal(call: Awaitable[Any]) -> tuple[str, str]:
    """Return the status and the text that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""
