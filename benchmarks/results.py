"""RESULTS.md: a section is a title on a line that begins with ## and what follows it."""

from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")

_BEGINS = "## "


def put(section: str, file: Path = RESULTS) -> None:
    """Write a section into the file, in place of the one with its title, else at the end."""
    file.write_text(with_section(file.read_text(), section))


def tell(section: str, *, dry: bool) -> int:
    """Print a section, and unless it is `dry`, write it into the file; return the exit code."""
    print(section)
    if not dry:
        put(section)
    return 0


def row(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def with_section(text: str, section: str) -> str:
    """Return the text with the section in place of the one with its title, else at the end."""
    title = section.splitlines()[0]
    lines = text.splitlines()
    if title not in lines:
        return f"{text.rstrip()}\n\n{section.strip()}\n"
    begin = lines.index(title)
    after = (place for place in range(begin + 1, len(lines)) if lines[place].startswith(_BEGINS))
    end = next(after, len(lines))
    parts = ["\n".join(lines[:begin]), section, "\n".join(lines[end:])]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
