"""`python -m coalmine_server FILE`: one worker of `server run --workers N`, which starts it."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from coalmine.process.early_signals import end_at_signals
from coalmine.process.standard_streams import open_standard_streams


def main(arguments: list[str]) -> int:
    """Serve as the file says until a signal, or the supervisor is gone; return the exit code."""
    end_at_signals()
    open_standard_streams()
    parser = argparse.ArgumentParser(prog="python -m coalmine_server")
    parser.add_argument("start", type=Path)
    parser.add_argument("--with-parent", action="store_true", required=True)
    return _run_worker(parser.parse_args(arguments).start)


def _run_worker(file: Path) -> int:
    # Not before signals are seen to.
    from structlog.contextvars import bind_contextvars  # noqa: PLC0415

    from coalmine.process.output_capture import capturing_output  # noqa: PLC0415
    from coalmine_server.cli.starting import start_logging_and_check_torch  # noqa: PLC0415
    from coalmine_server.fleet.worker_slot import read_worker_start  # noqa: PLC0415

    supervisor = os.getppid()
    start = read_worker_start(file)
    start_logging_and_check_torch()
    bind_contextvars(worker=start.slot.index)
    with capturing_output():
        from coalmine_server import app  # noqa: PLC0415 - brings torch

        code = app.run(start.config, start.slot)
    if os.getppid() != supervisor:  # killed: it can't tidy up
        shutil.rmtree(start.slot.folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
