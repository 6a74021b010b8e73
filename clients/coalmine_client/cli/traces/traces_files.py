"""Trace files on disk, read line by line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from coalmine.command_line.failure import WrongUsage
from coalmine.errors import reason_of
from coalmine_client.otlp_spans import Span, spans_of

# A batch of spans is a line; a gRPC message would be no longer.
LINE_CHARS_MAX: Final = 64 * 1024 * 1024


class TraceFiles:
    """The files that are meant by paths, of which a folder means all `traces-*.jsonl` in it.

    Raises WrongUsage where there are none, and while reading for what is not OTLP JSON.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._named = frozenset(path for path in paths if not path.is_dir())
        self._files = [file for path in paths for file in _trace_files(path)]
        # A line that ended before its JSON did: that of a file that is being written.
        self.unfinished: set[Path] = set()

    def spans(self) -> Iterator[Span]:
        """Yield all spans; again from the start each time."""
        for file in self._files:
            yield from self._spans_in(file)

    def _spans_in(self, file: Path) -> Iterator[Span]:
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                yield from self._parse_spans(file, lines)
        except FileNotFoundError:
            if file in self._named:
                raise WrongUsage(f"{file}: no such file or folder") from None
            # The oldest of a folder goes when there are too many.
        except OSError as error:
            raise WrongUsage(f"{file}: {reason_of(error)}") from None

    def _parse_spans(self, file: Path, lines: IO[str]) -> Iterator[Span]:
        number = 0
        while line := lines.readline(LINE_CHARS_MAX):
            number += 1
            if not line.strip():
                continue
            try:
                found = spans_of(line)
            except ValueError as error:
                if not line.endswith("\n") and len(line) < LINE_CHARS_MAX:
                    self.unfinished.add(file)
                    return
                raise WrongUsage(f"{file}: line {number}: {error}") from None
            yield from found


def _trace_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # A server's workers have folders of their own below it.
    found = sorted(path.rglob("traces-*.jsonl"))
    if not found:
        raise WrongUsage(f"{path}: no traces-*.jsonl in this folder")
    return found
