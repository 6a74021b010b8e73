"""Descriptor 1 or 2, with a pipe in its place for a while."""

import codecs
import contextlib
import ctypes
import fcntl
import os
from collections.abc import Iterator
from typing import Final, TextIO

from coalmine.process.printed_lines import LineCutter

STDOUT: Final = 1
STDERR: Final = 2

_CHUNK: Final = 65536
_CHUNKS_AT_ONCE: Final = 16
_PIPE_BYTES: Final = 1024 * 1024
_LINE_BUFFERED: Final = 1


class CapturedDescriptor:
    """A pipe that takes the place of descriptor 1 or 2 from `take` to `give_back`."""

    def __init__(self, number: int) -> None:
        self.name = descriptor_name(number)
        self.cutter = LineCutter()
        self.is_private = False
        self.has_ended = False  # a library may close the descriptor
        self._number = number
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._before = os.dup(number)
        self.reader, self._writer = os.pipe()
        # Whoever fills it, with Python's lock held perhaps, must not wait for the reader.
        os.set_blocking(self._writer, False)
        os.set_blocking(self.reader, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def redirect_to_pipe(self) -> None:
        """Let the descriptor be the pipe."""
        os.dup2(self._writer, self._number)
        os.close(self._writer)

    def own_stream(self, stream: TextIO) -> TextIO:
        """Return what writes to where `stream` has written; a test's stream may be no file."""
        try:
            self.is_private = stream.fileno() == self._number
        except (OSError, ValueError):
            self.is_private = False
        if not self.is_private:
            return stream
        encoding, errors = stream.encoding, stream.errors
        return os.fdopen(
            self._before, "w", buffering=1, encoding=encoding, errors=errors, closefd=False
        )

    def read_texts(self) -> Iterator[str]:
        """Yield what is there, or some of it where there is no end of it."""
        for _ in range(_CHUNKS_AT_ONCE):
            try:
                data = os.read(self.reader, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self.has_ended = True
                return
            yield self._decode(data)

    def give_back(self) -> None:
        """Let the descriptor be what it was."""
        os.dup2(self._before, self._number)

    def close_own_descriptors(self) -> None:
        """Close what is left."""
        os.close(self.reader)
        os.close(self._before)


def descriptor_name(number: int) -> str:
    """Return what the log calls a descriptor."""
    return "stdout" if number == STDOUT else "stderr"


# ---------------------------------------------------------------- the C library's own buffer


def let_c_print_lines() -> None:
    """Have printf and std::cout write line by line, also into a pipe."""
    if (c_stdout := _c_stdout()) is not None:
        ctypes.CDLL(None).setvbuf(c_stdout, None, _LINE_BUFFERED, 0)


def flush_c() -> None:
    """Write what the C library still holds for standard output."""
    if (c_stdout := _c_stdout()) is not None:
        ctypes.CDLL(None).fflush(c_stdout)


def _c_stdout() -> ctypes.c_void_p | None:
    try:
        return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stdout")
    except (OSError, ValueError):  # another C library
        return None
