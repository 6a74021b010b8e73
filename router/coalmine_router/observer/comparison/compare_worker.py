"""The program of a process that compares. Its only argument is the socket it was given.

The router sends it the module path, then the function that compares, then batches of jobs. It
answers each batch with a list of results, and what went wrong beside each. It imports only what
comparing needs.
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

# Processes that answer requests on this machine come first.
_NICE: Final = 5

JobAnswer = tuple[Any, str]


class SocketWriter:
    """A socket that pickle can write to: large bytes go out without a copy."""

    def __init__(self, connection: socket.socket) -> None:
        self.write = connection.sendall


def main() -> None:
    """Compare until the router closes its end of the socket, or ends."""
    # Ctrl-C and a stop of the whole unit are for the router, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICE)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        jobs = connection.makefile("rb")
        sys.path[:] = pickle.load(jobs)  # noqa: S301 - from the process that started this one
        run = pickle.load(jobs)  # noqa: S301 - as above
        batches: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        threading.Thread(target=_read_batches_then_exit, args=(jobs, batches), daemon=True).start()
        while True:
            answers = [_run_job(run, job) for job in batches.get()]
            pickle.dump(answers, SocketWriter(connection), pickle.HIGHEST_PROTOCOL)


def _read_batches_then_exit(jobs: BinaryIO, batches: "queue.SimpleQueue[list[Any]]") -> None:
    """Hand batches on. In a thread, so that the socket's end is seen even while a rule hangs."""
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


def _run_job(run: Callable[[Any], Any], job: Any) -> JobAnswer:
    try:
        return run(job), ""
    except Exception:  # noqa: BLE001 - one odd job must not cost the others of its batch
        return None, traceback.format_exc()


if __name__ == "__main__":
    main()
