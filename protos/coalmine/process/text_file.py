"""A file of text that a person named."""

from pathlib import Path

from coalmine.errors import StartError, reason_of


def content_of(path: Path) -> str:
    """Return what the file holds. Raises StartError where it can't be read, or is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StartError(f"{path}: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise StartError(f"{path}: not a text file") from None
