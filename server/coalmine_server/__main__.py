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
    parser.add_argument("orders", type=Path)
    parser.add_argument("--with-parent", action="store_true", required=True)
    return _served(parser.parse_args(arguments).orders)


def _served(file: Path) -> int:
    # Not before signals are seen to.
    from structlog.contextvars import bind_contextvars  # noqa: PLC0415

    from coalmine.process.output_capture import capturing_output  # noqa: PLC0415
    from coalmine_server.cli.starting import prepare  # noqa: PLC0415
    from coalmine_server.fleet.worker_slot import read_orders  # noqa: PLC0415

    supervisor = os.getppid()
    orders = read_orders(file)
    prepare()
    bind_contextvars(worker=orders.seat.index)
    with capturing_output():
        from coalmine_server import app  # noqa: PLC0415 - brings torch

        code = app.run(orders.config, orders.seat)
    if os.getppid() != supervisor:  # killed: it can't tidy up
        shutil.rmtree(orders.seat.folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
