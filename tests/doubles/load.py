"""Many callers at once over several connections, and what became of every call."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from coalmine.inference import inference_pb2_grpc as pb_grpc
from tests.doubles.server_rig import infer_request, pixels

# Channels to the same address share connections otherwise.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))


class Load:
    """Closed-loop callers; `ends` counts calls by the name of their status code."""

    def __init__(self, address: str, model: str = "digits", timeout_s: float = 20) -> None:
        self._address = address
        self._request = infer_request(model, pixels())
        self._timeout_s = timeout_s
        self._is_over = False
        self.ends: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()

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
        async with asyncio.timeout(timeout_s):
            while self.ends["OK"] < target:
                await asyncio.sleep(0.01)

    async def _call(self, channel: grpc.aio.Channel) -> None:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        while not self._is_over:
            try:
                await stub.ModelInfer(self._request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                self.ends[error.code().name] += 1
                self.texts[error.details() or ""] += 1
                await asyncio.sleep(0.05)  # as callers do that were refused
            else:
                self.ends["OK"] += 1
