"""One worker's place among several that share a port: what its supervisor tells it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from coalmine_server.config import ServerConfig


@dataclass(frozen=True, slots=True)
class Seat:
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

    def socket(self, index: int) -> str:
        """Return where a worker listens for the others."""
        return f"unix:{self.folder / str(index)}.sock"


@dataclass(frozen=True, slots=True)
class Orders:
    """All that a worker is started with."""

    config: ServerConfig
    seat: Seat


_ORDERS = TypeAdapter(Orders)


def write_orders(orders: Orders) -> Path:
    """Write what a worker is started with into the folder; return the file."""
    file = orders.seat.folder / f"{orders.seat.index}.json"
    file.write_bytes(_ORDERS.dump_json(orders))
    return file


def read_orders(file: Path) -> Orders:
    """Return what `write_orders` wrote."""
    return _ORDERS.validate_json(file.read_bytes())
