"""`coalmine server token`: a token for a caller, and the line that makes it known to a server."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from coalmine.access.tokens import TokenEntry, new_token, token_digest
from coalmine.errors import StartError
from coalmine.process.config_file import first_line


def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will show it.")],
    role: Annotated[str, typer.Option(help="viewer, caller, proxy or operator.")],
    expires: Annotated[
        str | None, typer.Option(help="Such as 2027-01-01T00:00:00Z. [never]")
    ] = None,
) -> None:
    """Make a token: to standard output, once. What a server's file has to say, beside it.

    Example: coalmine server token blue-team --role caller
    """
    made = new_token()
    said = {"name": name, "role": role, "sha256": token_digest(made).hex()}
    if expires is not None:
        said["expires"] = expires
    try:
        found = TokenEntry.model_validate(said)
    except ValidationError as error:
        raise StartError(first_line(error)) from None
    if found.expires is not None and found.expires <= datetime.now(UTC):
        raise StartError(f"--expires: expected a time to come, got {expires}")
    entry = ", ".join(f'{key}: "{value}"' for key, value in said.items())
    print("Add this line under `tokens:` in the file of --tokens:", file=sys.stderr)  # noqa: T201
    print(f"  - {{{entry}}}", file=sys.stderr)  # noqa: T201
    print(made)  # noqa: T201 - the answer
