"""Many callers at once over several connections, and what became of every call."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import grpc

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.server_rig import infer_request, pixels

# Channels to the same address share connections otherwise.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))


def nothing(answer: pb.ModelInferResponse) -> Hashable:
    """See nothing in an answer."""
    return None


class Load:
    """Closed-loop callers; `ends` counts calls by the name of their status code.

    `seen` counts answers by what `sight` makes of them.
    """

    def __init__(
        self,
        address: str,
        model: str = "digits",
        timeout_s: float = 20,
        sight: Callable[[pb.ModelInferResponse], Hashable] = nothing,
    ) -> None:
        self._address = address
        self._sight = sight
        self._ended = asyncio.Condition()
        self._request = infer_request(model, pixels())
        self._timeout_s = timeout_s
        self._is_over = False
        self.ends: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()
        self.seen: Counter[Hashable] = Counter()

    @property
    def failures(self) -> dict[str, int]:
        return {code: count for code, count in self.ends.items() if code != "OK"}

    @asynccontextmanager
    async def running(self, *, connections: int, callers: int) -> AsyncIterator[None]:
        """Call within this block; at its end every call has ended."""
        channels = [
            grpc.aio.insecure_channel(self._address, options=OPTIONS) for _ in range(connections)
        ]
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                tasks.create_task(self._call(channels[number % connections]))
            try:
                yield
            finally:
                self._is_over = True
        for channel in channels:
            await channel.close()

    async def answered(self, count: int, timeout_s: float = 20) -> None:
        """Return once `count` more calls were answered OK."""
        target = self.ends["OK"] + count
        await self._until(lambda: self.ends["OK"] >= target, timeout_s)

    async def until_seen(self, sight: Hashable, timeout_s: float = 20) -> None:
        """Return once an answer was seen so."""
        await self._until(lambda: sight in self.seen, timeout_s)

    async def _until(self, reached: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s), self._ended:
            await self._ended.wait_for(reached)

    async def _call(self, channel: grpc.aio.Channel) -> None:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        while not self._is_over:
            try:
                answer = await stub.ModelInfer(self._request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                self.ends[error.code().name] += 1
                self.texts[error.details() or ""] += 1
                await asyncio.sleep(0.05)  # as callers do that were refused
            else:
                self.ends["OK"] += 1
                self.seen[self._sight(answer)] += 1
            async with self._ended:
                self._ended.notify_all()
