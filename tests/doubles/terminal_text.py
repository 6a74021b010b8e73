"""What a view looks like on a terminal."""

import io

from rich.console import Console, RenderableType


def shown(view: RenderableType, width: int = 100) -> str:
    """Return it as printed on so many columns."""
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False).print(view, crop=False)
    return file.getvalue()


def row(text: str, start: str) -> list[str]:
    """Return the words of the first line that begins with `start`."""
    return next(line for line in text.splitlines() if line.startswith(start)).split()
