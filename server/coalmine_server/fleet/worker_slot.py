"""One worker's slot among several that share a port, as its supervisor gives it."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from coalmine_server.config import ServerConfig


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """A worker's number, the cores it may use, and the folder of the workers' sockets.

    The folder is private to the server: a process that can open a socket may change what is served.
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
        """Return the other workers, and this slot too where another process has taken it by now."""
        with contextlib.suppress(OSError):
            if self._link_path(self.index).readlink() != self._own_socket_file:
                return (*self.peers, self.index)
        return self.peers

    def socket_address(self, index: int) -> str:
        """Return where a worker listens for the others."""
        return f"unix:{self._link_path(index)}"

    @property
    def own_socket_address(self) -> str:
        """Where this very process listens for them."""
        return f"unix:{self._own_socket_file}"

    def is_taken_by_another(self) -> bool:
        """Return whether another living process has the slot, which the caller is to replace."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._link_path(self.index).readlink().stem.rpartition("-")[2])
            return pid != os.getpid() and Path(f"/proc/{pid}").exists()
        return False

    def take_over(self) -> None:
        """Have the others call this process, and no longer the one that had the slot before."""
        fresh = self._own_socket_file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._own_socket_file)
        fresh.replace(self._link_path(self.index))

    def _link_path(self, index: int) -> Path:
        return self.folder / f"{index}.sock"

    @property
    def _own_socket_file(self) -> Path:
        # gRPC removes the file of a socket when it ends: each process has its own.
        return self.folder / f"{self.index}-{os.getpid()}.sock"


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """All that a worker is started with."""

    config: ServerConfig
    slot: WorkerSlot


_WORKER_START = TypeAdapter(WorkerStart)


def write_worker_start(start: WorkerStart) -> Path:
    """Write what a worker is started with into the folder; return the file."""
    file = start.slot.folder / f"{start.slot.index}.json"
    file.write_bytes(_WORKER_START.dump_json(start))
    return file


def read_worker_start(file: Path) -> WorkerStart:
    """Return what `write_worker_start` wrote."""
    return _WORKER_START.validate_json(file.read_bytes())
