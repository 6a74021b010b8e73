"""Files of spans that Jaeger opens: bounded in number and size."""

import io
import os
from pathlib import Path
from typing import IO, Final

_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_FILES_MAX: Final = 8


class RotatingFile(io.TextIOBase):
    """A text stream over `traces-NNNNNN.jsonl` files; the oldest go when there are too many.

    Rotates only between writes, so every file holds whole lines. The first one is opened by `open`,
    or by the first lines.
    """

    def __init__(
        self, folder: Path, *, bytes_max: int = _FILE_BYTES_MAX, files_max: int = _FILES_MAX
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._number = max(map(_file_number, folder.glob("traces-*.jsonl")), default=0)
        self._file: IO[str] | None = None

    def open(self) -> None:
        """Begin the first file now. Raises OSError."""
        self._file = self._file or self._open_next_file()

    def write(self, text: str) -> int:
        """Write whole lines; begin a new file first where they no longer fit, or it was deleted."""
        file = self._file
        if file is None or self._is_full(file, text) or not os.fstat(file.fileno()).st_nlink:
            # Open the next one first: where that fails, it can be tried again with the next lines.
            following = self._open_next_file()
            self.close()
            self._file = file = following
        return file.write(text)

    def _is_full(self, file: IO[str], text: str) -> bool:
        return 0 < file.tell() > self._bytes_max - len(text)

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the newest file."""
        if self._file is not None:
            self._file.close()

    @property
    def closed(self) -> bool:
        """Whether the stream was closed."""
        return self._file is not None and self._file.closed

    def _open_next_file(self) -> IO[str]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self._number + 1
        opened = (self._folder / f"traces-{number:06d}.jsonl").open("a", encoding="utf-8")
        self._number = number
        for old in self._folder.glob("traces-*.jsonl"):
            if 0 < _file_number(old) <= number - self._files_max:
                old.unlink(missing_ok=True)
        return opened


def _file_number(path: Path) -> int:
    digits = path.stem.removeprefix("traces-")
    return int(digits) if digits.isdecimal() else 0
