"""What is on the disk."""

from pathlib import Path


def contents(folder: Path) -> bytes:
    """Return the bytes of all files of a folder, one after the other."""
    return b"\0".join(each.read_bytes() for each in sorted(folder.iterdir()))
