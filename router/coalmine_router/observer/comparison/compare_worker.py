"""The program of a process that compares; its only argument is the socket it was given.

It is sent the module path, then how to compare, then batches of jobs; each batch is answered by a
list of results, with what went wrong beside each. It imports no more than comparing needs.
"""

import os
import pickle
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, Final

# Whoever answers requests on this machine comes first.
_NICE: Final = 5

Answered = tuple[Any, str]


class Sending:
    """A socket as pickle wants it to write to: large bytes go out without a copy."""

    def __init__(self, connection: socket.socket) -> None:
        self.write = connection.sendall


def main() -> None:
    """Compare until the other end of the socket is closed, or gone with its process."""
    # Ctrl-C and a stop of the whole unit are for the router: it says when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICE)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        jobs = connection.makefile("rb")
        sys.path[:] = pickle.load(jobs)  # noqa: S301 - from the process that started this one
        run = pickle.load(jobs)  # noqa: S301 - as above
        batches: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(jobs, batches), daemon=True).start()
        while True:
            answers = [_answered(run, job) for job in batches.get()]
            pickle.dump(answers, Sending(connection), pickle.HIGHEST_PROTOCOL)


def _read(jobs: BinaryIO, batches: "queue.SimpleQueue[list[Any]]") -> None:
    """Hand batches on. In a thread, so that the end is seen while a rule runs for ever."""
    code = 1
    try:
        while True:
            batches.put(pickle.load(jobs))  # noqa: S301 - from the process that started this one
    except (EOFError, ConnectionError):
        code = 0
    except Exception:  # noqa: BLE001 - whatever it is, nothing after it can be read
        traceback.print_exc()
    finally:
        os._exit(code)


def _answered(run: Callable[[Any], Any], job: Any) -> Answered:
    try:
        return run(job), ""
    except Exception:  # noqa: BLE001 - one odd job must not cost the others of its batch
        return None, traceback.format_exc()


if __name__ == "__main__":
    main()
