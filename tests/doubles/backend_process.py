"""A backend in a process of its own, so that a test can stop it in the middle of everything.

As a program: answers OIP's calls with their inputs, and tells its address on standard output. It
drains when it is terminated.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.oip_backend import OipBackend

_GRACE_S = 5.0
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class BackendProcess:
    """It runs; `freeze` leaves it its connections."""

    process: subprocess.Popen[str]
    address: str

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def backend_process(address: str = "127.0.0.1:0") -> Iterator[BackendProcess]:
    """Yield a backend in a process; at the end it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.backend_process", address],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    try:
        assert process.stdout is not None
        yield BackendProcess(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


async def _serve() -> None:
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    async with OipBackend(health=True, address=sys.argv[1]) as backend:
        print(backend.address, flush=True)
        await terminated.wait()
        await backend.drain(_GRACE_S)


if __name__ == "__main__":
    asyncio.run(_serve())
