"""The state folder, and which files in it are the router's."""

from pathlib import Path
from typing import Final

from coalmine.private_folder import open_private

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


def open_state(folder: Path) -> None:
    """Make the folder where there is none; nobody but this user can open it. Raises OSError."""
    open_private(folder, _FILES)
