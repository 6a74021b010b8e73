"""The `coalmine` program: the operator's verbs, and the way to its siblings' groups."""

import errno
import os
import sys
from typing import Final, NoReturn

from coalmine.process.early_signals import end_at_signals, remember_hangup
from coalmine.process.exit_codes import INTERRUPTED
from coalmine.process.standard_streams import open_standard_streams

_FAILED: Final = 1
# What a standard output that takes no more answers with; its reader is gone, or its disk is full.
_OUTPUT_LOST: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT})


def main() -> None:
    """Run the program, and exit: 130 after Ctrl-C at any moment, 1 where the output is lost."""
    end_at_signals()
    remember_hangup()
    open_standard_streams()
    try:
        try:
            _run_program()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _exit_at_once(INTERRUPTED, "")
    except OSError as error:
        if error.errno not in _OUTPUT_LOST:
            raise
        # A reader that has seen enough, such as head, needs no line.
        _exit_at_once(_FAILED, "" if error.errno == errno.EPIPE else (error.strerror or "").lower())


def _run_program() -> None:
    # gRPC's core, which reads this when it is imported, would write lines of its own beside the
    # one that a failed verb owes.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from coalmine_client.cli.root import run  # noqa: PLC0415 - not before the line above

    run()


def _exit_at_once(exit_code: int, reason: str) -> NoReturn:
    """Exit at once: Python's own way would flush the lost output again, and complain."""
    if reason:
        line = f"coalmine: the output can't be written: {reason}\n"
        os.write(sys.stderr.fileno(), line.encode())
    os._exit(exit_code)
