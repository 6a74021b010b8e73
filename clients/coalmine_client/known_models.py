"""What a client remembers of models: datatypes of inputs, rows of a batch."""

import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import grpc

from coalmine.inference import inference_pb2 as pb
from coalmine_client.call_error import CallError, DeadlineExceeded, Unavailable

Key = tuple[str, str]  # model and version; "": the server's choice

Told = TypeVar("Told")

_KNOWN_MAX: Final = 1_024
# A server that won't tell now won't tell later: its models are sent what is given.
_NEVER_TOLD: Final = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)


class KnownModels:
    """Asks once for each model and version; shared by threads."""

    def __init__(
        self,
        metadata: Callable[[Key, float | None], pb.ModelMetadataResponse],
        rows_max: Callable[[Key, float | None], int],
    ) -> None:
        self._metadata = metadata
        self._ask_rows_max = rows_max
        self._datatypes: dict[Key, Mapping[str, str]] = {}
        self._rows_max: dict[Key, int] = {}
        self._lock = threading.Lock()

    def get_datatypes(self, key: Key, ends_s: float | None) -> Mapping[str, str]:
        """Return the datatype of each input; none where the server doesn't tell.

        `ends_s` is when the caller's time is over, in time.monotonic's seconds. Raises CallError
        where the server gives no answer.
        """
        known = self._datatypes.get(key)
        return self._ask_datatypes(key, ends_s) if known is None else known

    def get_rows_max(self, key: Key, ends_s: float | None) -> int:
        """Return how many rows a batch may have; 0: the model doesn't batch. Raises CallError."""
        if (known := self._rows_max.get(key)) is not None:
            return known
        found = self._ask_rows_max(key, ends_s)
        with self._lock:
            _store_bounded(self._rows_max, key, found)
        return found

    def forget(self, key: Key) -> None:
        """Ask again next time."""
        with self._lock:
            self._datatypes.pop(key, None)
            self._rows_max.pop(key, None)

    def _ask_datatypes(self, key: Key, ends_s: float | None) -> Mapping[str, str]:
        found: dict[str, str] = {}
        try:
            found = {each.name: each.datatype for each in self._metadata(key, ends_s).inputs}
        except (Unavailable, DeadlineExceeded):
            raise
        except CallError as error:
            if error.code() not in _NEVER_TOLD:  # the call itself will say what is wrong
                return {}
        with self._lock:
            _store_bounded(self._datatypes, key, found)
        return found


def _store_bounded(known: dict[Key, Told], key: Key, found: Told) -> None:
    if len(known) >= _KNOWN_MAX:
        del known[next(iter(known))]
    known[key] = found
