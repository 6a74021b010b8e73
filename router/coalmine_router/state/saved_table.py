"""The last route table on disk: enough to serve by when there is nothing better."""

import contextlib
import os
from pathlib import Path
from typing import Final

import structlog

from coalmine.control.v1 import control_pb2 as pb
from coalmine.errors import InvalidRequest
from coalmine_router.snapshot import table_from

_log = structlog.get_logger(__name__)

FILE: Final = "route-table.pb"


class SavedTable:
    """A file that holds one table, always whole: proxies write it, and the control process does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> pb.RouteTable | None:
        """Return the table; None where there is none, or none that can be used, which is logged."""
        message = pb.RouteTable()
        try:
            message.ParseFromString(self.path.read_bytes())
            if not table_from(message).routes:
                raise InvalidRequest("no routes")  # noqa: TRY301 - an empty file reads as this
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - a torn file is no reason not to start
            _log.warning("saved_table_unusable", file=str(self.path), error=str(error))
            return None
        return message

    def write(self, message: pb.RouteTable, *, durable: bool = False) -> None:
        """Put a table in the place of the one there; `durable`: it outlives a power failure.

        Raises OSError, and leaves the one there as it was.
        """
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(message.SerializeToString())
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):  # it would take room on a disk that has none
                draft.unlink()
            raise
