"""What an address reports of its models: a model may have failed while the server is well."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2 as pb

from coalmine_router.backends.address import Address
from coalmine_router.backends.intervals import Intervals
from coalmine_router.change_signal import ChangeSignal
from coalmine_router.metadata import Pair

# Each is a stream of its own. Over that number, only calls show whether a model serves.
MODELS_MAX: Final = 64
_WATCH: Final = "/grpc.health.v1.Health/Watch"

_Watches = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]


class ModelHealthWatch:
    """Watches `model/NAME` at an address, for each of the models `wanted` there, while `run` runs.

    A server that doesn't know such a name, or has no health service, counts as serving it.
    """

    def __init__(
        self,
        address: Address,
        *,
        wanted: Callable[[], frozenset[str]],
        token_metadata: Callable[[], tuple[Pair, ...]],
        changes: ChangeSignal,
        rng: random.Random,
        intervals: Intervals,
    ) -> None:
        self._address = address
        self._wanted = wanted
        self._token_metadata = token_metadata
        self._changes = changes
        self._rng = rng
        self._intervals = intervals
        self._watches: _Watches = address.channel.unary_stream(_WATCH)

    async def run(self) -> None:
        """Watch until cancelled. After that no model's state is known."""
        watched: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    wanted = sorted(self._wanted())[:MODELS_MAX]
                    for gone in watched.keys() - set(wanted):
                        watched.pop(gone).cancel()
                        self._address.note_model(gone, serving=True)
                    for model in wanted:
                        if model not in watched:
                            watched[model] = tasks.create_task(self._watch(model))
                    await self._changes.wait()
        finally:
            self._address.forget_models()

    async def _watch(self, model: str) -> None:
        """Note each report of one model, as long as the server sends them."""
        request = pb.HealthCheckRequest(service=f"model/{model}").SerializeToString()
        again_s = self._intervals.watch_again_s
        while True:
            try:
                async for word in self._watches(request, metadata=self._token_metadata()):
                    again_s = self._intervals.watch_again_s
                    serving = status_of(word) != pb.HealthCheckResponse.NOT_SERVING
                    self._address.note_model(model, serving=serving)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self._address.note_model(model, serving=True)
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
            await asyncio.sleep(again_s * (0.8 + 0.4 * self._rng.random()))
            again_s = min(2 * again_s, self._intervals.watch_again_max_s)


def status_of(word: bytes) -> int:
    """Return the status in a message of Watch; UNKNOWN where the message can't be read."""
    try:
        return int(pb.HealthCheckResponse.FromString(word).status)
    except DecodeError:
        return int(pb.HealthCheckResponse.UNKNOWN)
