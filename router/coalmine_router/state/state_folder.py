"""The state folder, and which files in it are the router's."""

import errno
from pathlib import Path
from typing import Final

from coalmine.errors import StartError, reason_of
from coalmine.process.private_folder import open_private

# With what SQLite keeps beside a database, drafts, and what was set aside.
_FILES: Final = (
    "control.db*",
    "evidence.db*",
    "mismatches.db*",
    "control.lock",
    "control.sock",
    "route-table.pb*",
    "config-in-force.yaml*",
    "outputs-known.json*",
    "processes.json*",
)
# What no disk that recovers will mend.
_WRONG_PATH: Final = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_NO_RIGHT: Final = {errno.EACCES, errno.EPERM}


def open_state(folder: Path) -> None:
    """Make the folder where there is none; nobody but this user can open it. Raises OSError."""
    open_private(folder, _FILES)


def raise_if_wrong_place(folder: Path, error: OSError) -> None:
    """Raise StartError where `error`, of opening the folder, means that it is at a wrong place.

    Else it is the disk that is in trouble, and what else the router has to do goes on without it.
    """
    if error.errno in _WRONG_PATH or (error.errno in _NO_RIGHT and not _is_there(folder)):
        raise StartError(f"state folder {folder}: {reason_of(error)}") from None


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:
        return False
