"""Files that are written whole or not at all: an error leaves what was there."""

import contextlib
from pathlib import Path

from coalmine.command_line.failure import Failure
from coalmine.errors import reason_of


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, as it holds requests or answers.

    A pipe or device stays what it is, and gets the content. Raises Failure.
    """
    try:
        if is_stream(path):
            path.write_bytes(content)
        else:
            write_atomically(path, content, is_private=True)
    except OSError as error:
        raise Failure(f"{path}: {reason_of(error)}") from None


def write_atomically(path: Path, content: bytes, *, is_private: bool = False) -> None:
    """Write a file, and the folders above it that are missing. Raises OSError."""
    path.parent.mkdir(mode=0o700 if is_private else 0o777, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        if is_private:
            draft.touch(mode=0o600)
            draft.chmod(0o600)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def is_stream(path: Path) -> bool:
    """Return whether a pipe or device is there, such as /dev/stdout. Raises OSError."""
    return path.exists() and not (path.is_file() or path.is_dir())
