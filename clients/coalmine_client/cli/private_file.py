"""Files that only their owner may read: they hold what callers sent, or were answered."""

import contextlib
from pathlib import Path

from coalmine.errors import reason_of
from coalmine_client.cli.failure import Failure


def write_private(path: Path, content: bytes) -> None:
    """Write the file, or by an error leave what was there. Raises Failure.

    A pipe or device stays what it is, and is written to.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        if is_stream(path):
            path.write_bytes(content)
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise Failure(f"{path}: {reason_of(error)}") from None


def is_stream(path: Path) -> bool:
    """Return whether a pipe or device is there, such as /dev/stdout. Raises OSError."""
    return path.exists() and not (path.is_file() or path.is_dir())
