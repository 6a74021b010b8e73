"""Turns whatever a process's libraries print into events of its log.

A model prints by TorchScript's `print`, torch warns, C code writes to the descriptors. None of that
may stand between the lines of a log, or before the JSON of an answer. So descriptors 1 and 2 are
pipes meanwhile. `sys.stdout` and `sys.stderr` know by the thread which model prints. The process's
own lines go to `standard_streams.uncaptured_stream`.
"""

import contextlib
import contextvars
import faulthandler
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TextIO

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars

from coalmine.process.captured_descriptor import (
    STDERR,
    STDOUT,
    CapturedDescriptor,
    descriptor_name,
    flush_c,
    let_c_print_lines,
)
from coalmine.process.printed_lines import LineCutter, LineRates, shown_line
from coalmine.process.standard_streams import open_standard_streams

_log = structlog.get_logger(__name__)

_TICK_S: Final = 1.0
_END_S: Final = 2.0

Words = Mapping[str, Any]


@contextlib.contextmanager
def capturing_output() -> Iterator[None]:
    """Log what is printed within this block: an event `printed` for each line.

    Lines are bounded in length and number; those over it are counted in `printed_lines_dropped`.
    """
    capture = OutputCapture()
    capture.begin()
    try:
        yield
    finally:
        capture.end()


@contextlib.contextmanager
def printing_as(**words: Any) -> Iterator[None]:
    """Name in the log what prints on this thread, such as a model.

    The name is also that of native code's output, if no other thread is within such a block.
    """
    stream = sys.stdout
    capture = stream.capture if isinstance(stream, CapturedStream) else None
    with bound_contextvars(**words), capture.naming(words) if capture else _do_nothing():
        yield


@contextlib.contextmanager
def _do_nothing() -> Iterator[None]:
    yield


class OutputCapture:
    """Takes the process's standard output and error from `begin` to `end`."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        # Both again by a thread that is interrupted while it has it. The first is never held while
        # something is logged: whoever logs may print.
        self._lock = threading.RLock()
        self._reading = threading.RLock()
        self._rates = LineRates()
        self._pipes: list[CapturedDescriptor] = []
        self._streams: list[CapturedStream] = []
        # By thread and stream: what has no end yet.
        self._begun: dict[tuple[int, str], tuple[LineCutter, Words]] = {}
        self._named: list[Words] = []
        self._writing = threading.local()
        self._is_over = False
        self._context = contextvars.copy_context()
        open_standard_streams()  # or this pipe would be one of them
        self._woken, self._wake = os.pipe()

    def begin(self) -> None:
        """Take them."""
        self._before = sys.stdout, sys.stderr
        self._had_faults = faulthandler.is_enabled()
        for number, stream in zip((STDOUT, STDERR), self._before, strict=True):
            stream.flush()
            self._pipes.append(CapturedDescriptor(number))
            own = self._pipes[-1].own_stream(stream)
            self._streams.append(CapturedStream(number, own, self))
        # Before and, in `end`, after the descriptors: the log never writes to a pipe of ours.
        sys.stdout, sys.stderr = self._streams
        for pipe in self._pipes:
            pipe.redirect_to_pipe()
        let_c_print_lines()
        self._send_faults_to(self._streams[1].own)
        self._thread = threading.Thread(target=self._drain_pipes, name="printed", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Give them back, once all that was printed is in the log."""
        flush_c()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.flush()
        for pipe in self._pipes:
            pipe.give_back()
        sys.stdout, sys.stderr = self._before
        self._send_faults_to(sys.stderr if self._had_faults else None)
        with self._reading:
            self._is_over = True
        os.write(self._wake, b"!")
        self._thread.join(_END_S)
        if not self._thread.is_alive():  # else the log takes nothing any more
            self._close()

    def write(self, name: str, text: str) -> None:
        """Take what this thread prints to the stream called `name`."""
        if getattr(self._writing, "is_busy", False):
            return  # the log itself complains: it would do so for ever
        words = {**self._words_if_single(), **get_contextvars()}
        with self._lock:
            key = (threading.get_ident(), name)
            cutter, _ = self._begun.pop(key, (LineCutter(), words))
            lines = cutter.cut(text)
            if not cutter.is_empty:
                self._begun[key] = (cutter, words)
        for line in lines:
            self._log_if_allowed(name, line, words)

    @contextlib.contextmanager
    def naming(self, words: Words) -> Iterator[None]:
        """Take what native code writes for theirs, while they are the only ones."""
        with self._locked_after_reading():
            self._named.append(words)
        try:
            yield
        finally:
            with self._locked_after_reading():
                self._named.remove(words)

    # ------------------------------------------------------------ from the pipes

    def _drain_pipes(self) -> None:
        ready = select.poll()
        for descriptor in (self._woken, *(pipe.reader for pipe in self._pipes)):
            ready.register(descriptor, select.POLLIN)
        next_s = self._now_s() + _TICK_S
        while not self._is_over:
            ready.poll(_TICK_S * 1000)
            for pipe in self._log_pipes():
                with contextlib.suppress(KeyError):
                    ready.unregister(pipe.reader)
            if self._now_s() >= next_s:
                self._log_rest()
                next_s = self._now_s() + _TICK_S
        self._log_pipes()
        self._log_rest()

    def _log_pipes(self) -> list[CapturedDescriptor]:
        """Log the content of the pipes; return those that have no writer any more."""
        with self._reading:
            for pipe in self._pipes:
                for text in pipe.read_texts():
                    words = self._words_if_single()
                    for line in pipe.cutter.cut(text):
                        self._log_if_allowed(pipe.name, line, words)
            return [pipe for pipe in self._pipes if pipe.has_ended]

    @contextlib.contextmanager
    def _locked_after_reading(self) -> Iterator[None]:
        """Change who prints after what was written so far, and before what comes next."""
        with self._reading:
            if not self._is_over:  # a thread may outlast its process's end
                self._log_pipes()
            with self._lock:
                yield

    def _words_if_single(self) -> Words:
        with self._lock:
            first = self._named[0] if self._named else {}
            return first if all(each == first for each in self._named) else {}

    def _close(self) -> None:
        for pipe in self._pipes:
            pipe.close_own_descriptors()
        os.close(self._woken)
        os.close(self._wake)

    # ------------------------------------------------------------ to the log

    def _log_rest(self) -> None:
        """Log lines that have no end yet, and how many there was no room for."""
        with self._lock:
            begun, self._begun = self._begun, {}
            dropped = self._rates.take_dropped()
        for (_, name), (cutter, words) in begun.items():
            self._log_if_allowed(name, cutter.take_rest(), words)
        for pipe in self._pipes:
            self._log_if_allowed(pipe.name, pipe.cutter.take_rest(), self._words_if_single())
        for model, lines in dropped.items():
            words = {"model": model} if model else {}
            _log.warning("printed_lines_dropped", lines=lines, **words)

    def _log_if_allowed(self, name: str, line: str, words: Words) -> None:
        if not line:
            return
        with self._lock:
            if not self._rates.take(words.get("model", ""), self._now_s()):
                return
        self._writing.is_busy = True
        try:
            # Not in the context of this thread, which may read what others wrote.
            self._context.copy().run(_log_line, words, name, shown_line(line))
        finally:
            self._writing.is_busy = False

    def _send_faults_to(self, stream: TextIO | None) -> None:
        """Let a crash write its stacks to `stream`: what is in a pipe by then is lost."""
        if not self._pipes[1].is_private:
            return
        if stream is None:
            faulthandler.disable()
        else:
            faulthandler.enable(stream)


class CapturedStream(io.TextIOWrapper):
    """A standard stream whose text is logged; bytes, and other writers, take the pipe."""

    def __init__(self, number: int, own: TextIO, capture: OutputCapture) -> None:
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        self.own = own
        self.capture = capture
        self._name = descriptor_name(number)

    def write(self, text: str) -> int:
        """Log the lines that end in `text`; return its length."""
        self.capture.write(self._name, text)
        return len(text)


def _log_line(words: Words, name: str, line: str) -> None:
    log = _log.info if name == "stdout" else _log.warning
    log("printed", **{**words, "stream": name, "line": line})
