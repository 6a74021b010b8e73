"""One worker's place among several that share a port: what its supervisor tells it."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from coalmine_server.config import ServerConfig


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """Which of the workers this one is, the cores it may use, and where it meets the others.

    The folder is private to the server: who can open what lies in it may change what is served.
    """

    index: int
    workers: int
    cores: int
    folder: Path

    @property
    def peers(self) -> tuple[int, ...]:
        """The other workers."""
        return tuple(each for each in range(self.workers) if each != self.index)

    def others(self) -> tuple[int, ...]:
        """Return the other workers; where another one has taken this seat by now, that too."""
        with contextlib.suppress(OSError):
            if self._sign(self.index).readlink() != self._own:
                return (*self.peers, self.index)
        return self.peers

    def socket(self, index: int) -> str:
        """Return where a worker listens for the others."""
        return f"unix:{self._sign(index)}"

    @property
    def own_socket(self) -> str:
        """Where this very process listens for them."""
        return f"unix:{self._own}"

    def is_held(self) -> bool:
        """Return whether another process that lives has the seat: whoever asks is to replace it."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._sign(self.index).readlink().stem.rpartition("-")[2])
            return pid != os.getpid() and Path(f"/proc/{pid}").exists()
        return False

    def take(self) -> None:
        """Have the others come to this process, no more to one that had the seat before."""
        fresh = self._own.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._own)
        fresh.replace(self._sign(self.index))

    def _sign(self, index: int) -> Path:
        return self.folder / f"{index}.sock"

    @property
    def _own(self) -> Path:
        # gRPC removes the file of a socket when it ends: each process has its own.
        return self.folder / f"{self.index}-{os.getpid()}.sock"


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """All that a worker is started with."""

    config: ServerConfig
    seat: WorkerSlot


_ORDERS = TypeAdapter(WorkerStart)


def write_orders(orders: WorkerStart) -> Path:
    """Write what a worker is started with into the folder; return the file."""
    file = orders.seat.folder / f"{orders.seat.index}.json"
    file.write_bytes(_ORDERS.dump_json(orders))
    return file


def read_orders(file: Path) -> WorkerStart:
    """Return what `write_orders` wrote."""
    return _ORDERS.validate_json(file.read_bytes())
