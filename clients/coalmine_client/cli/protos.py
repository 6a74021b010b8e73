"""`coalmine protos`: the .proto files, from which other languages make their stubs."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import typer

from coalmine.command_line.failure import Failure
from coalmine.errors import reason_of
from coalmine_client.cli.atomic_file import write_atomically

_PACKAGE: Final = "coalmine"
_ENDING: Final = ".proto"


def protos(
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where they go.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Write the .proto files of servers and routers, from which protoc makes stubs.

    DIR is what protoc's -I then names. Prints each file that it wrote.

    Example: coalmine protos --to protos
    """
    for path in write_protos(to, force=force):
        typer.echo(path)


def write_protos(folder: Path, *, force: bool) -> list[Path]:
    """Write the files below `folder`, and return those that were written. Raises Failure.

    A file that is there as it should be is left alone. Without `force`, nothing is written where
    another is in the way.
    """
    try:
        changed = _outdated_files(folder)
        there = [path for path in changed if path.exists()]
        if there and not force:
            raise Failure(f"{there[0]} is there already, and differs; --force overwrites it")
        for path, content in changed.items():
            write_atomically(path, content)
    except OSError as error:
        raise Failure(f"{error.filename or folder}: {reason_of(error)}") from None
    return list(changed)


def _outdated_files(folder: Path) -> Mapping[Path, bytes]:
    """Return the files that `folder` doesn't have as they should be."""
    wanted = {folder / name: content for name, content in _proto_files(files(_PACKAGE), _PACKAGE)}
    return {
        path: content
        for path, content in wanted.items()
        if not path.is_file() or path.read_bytes() != content
    }


def _proto_files(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            yield from _proto_files(each, f"{name}/{each.name}")
        elif each.name.endswith(_ENDING):
            yield f"{name}/{each.name}", each.read_bytes()
