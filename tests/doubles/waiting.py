"""Waiting for what another process does: looked at often, and given up in time."""

import time
from collections.abc import Callable


def until(reached: Callable[[], bool], timeout_s: float) -> None:
    """Return when `reached` is true; fail the test where it isn't within `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < give_up, f"not reached within {timeout_s} s"
        time.sleep(0.02)
