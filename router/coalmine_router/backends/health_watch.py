"""Keeps an address's state true: its connection, its health reports, its answers to probes."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2 as pb

from coalmine_router.backends.address import Address
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.model_readiness import ModelHealthWatch, status_of
from coalmine_router.metadata import Pair
from coalmine_router.unreachable import why_unreachable

_READY: Final = grpc.ChannelConnectivity.READY
_FAILED: Final = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_DETAILS_MAX: Final = 160
_SERVICE: Final = "grpc.health.v1.Health"
# The server as a whole, not one of its services.
_ANYTHING: Final = pb.HealthCheckRequest().SerializeToString()

_Checks = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
_Watches = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
_TRIES: Final = 2


class HealthWatch:
    """Keeps one address connected and its state true, while `run` runs."""

    def __init__(
        self,
        address: Address,
        token_metadata: Callable[[], tuple[Pair, ...]],
        rng: random.Random,
        intervals: Intervals,
        models: ModelHealthWatch,
    ) -> None:
        self._address = address
        self._channel = address.channel
        self._token_metadata = token_metadata
        self._rng = rng
        self._intervals = intervals
        self._models = models
        # Bytes, because gRPC's own reader logs a traceback for each answer that it can't read.
        self._checks: _Checks = address.channel.unary_unary(f"/{_SERVICE}/Check")
        self._watches: _Watches = address.channel.unary_stream(f"/{_SERVICE}/Watch")
        self._doubt = asyncio.Event()
        self._speaks = asyncio.Event()  # anew for each connection
        address.set_probe_request(self._doubt.set)

    async def run(self) -> None:
        """Watch the address until cancelled."""
        while True:
            await self._connect()
            self._address.set_state(self._address.state.after_connecting())
            await self._watch_until_lost()
            self._address.set_state(self._address.state.after_loss())

    # ------------------------------------------------------------ its connection

    async def _connect(self) -> None:
        state = self._channel.get_state(try_to_connect=True)
        while state is not _READY:
            if state is _FAILED:
                await self._note_unreachable()
            # This returns at once if the state has changed by now.
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def _note_unreachable(self) -> None:
        """Note why there is no connection: gRPC tells the reason only to a call."""
        try:
            await self._call_health_check()
        except grpc.aio.AioRpcError as error:
            why = why_unreachable(error.details() or "", _DETAILS_MAX)
            if self._address.is_out_of_reach():
                self._address.set_state(self._address.state.after_failure(why))

    async def _watch_until_lost(self) -> None:
        """Watch and probe until the connection is lost."""
        async with asyncio.TaskGroup() as tasks:
            self._speaks = asyncio.Event()
            parts = (self._watch_health(), self._watch_models(), self._probe_forever())
            beside = [tasks.create_task(each) for each in parts]
            await self._channel.wait_for_state_change(_READY)
            for each in beside:
                each.cancel()

    async def _watch_models(self) -> None:
        """Watch its models once it has reported its own health. Without that service, don't ask."""
        await self._speaks.wait()
        await self._models.run()

    # ------------------------------------------------------------ its health reports

    async def _watch_health(self) -> None:
        """Note each report of its health, as long as it sends them."""
        again_s = self._intervals.watch_again_s
        while True:
            try:
                async for word in self._watches(_ANYTHING, metadata=self._token_metadata()):
                    again_s = self._intervals.watch_again_s
                    self._note_report(serving=status_of(word) != pb.HealthCheckResponse.NOT_SERVING)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self._note_other_answer()
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    return
            await asyncio.sleep(self._with_jitter(again_s))
            again_s = min(2 * again_s, self._intervals.watch_again_max_s)

    def _note_report(self, *, serving: bool) -> None:
        self._speaks.set()
        self._address.set_state(self._address.state.after_health_report(serving=serving))

    def _note_other_answer(self) -> None:
        """Note an answer that is no report of its health."""
        state = self._address.state
        self._address.set_state(state.after_health_report(serving=state.is_serving))

    # ------------------------------------------------------------ whether it answers

    async def _probe_forever(self) -> None:
        """Probe the address at intervals, and after a doubt.

        A stopped peer keeps its connection. So does a peer whose machine is gone.
        """
        while True:
            await self._wait_until_probe_is_due()
            self._doubt.clear()
            answered = await self._send_probe()
            self._address.set_state(self._address.state.after_probe(answered=answered))

    async def _wait_until_probe_is_due(self) -> None:
        """Wait until it is time for a probe."""
        intervals, state = self._intervals, self._address.state
        await asyncio.sleep(self._with_jitter(intervals.probe_pause_s))
        if state.is_heard and state.is_answering:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    self._with_jitter(intervals.probe_every_s - intervals.probe_pause_s)
                ):
                    await self._doubt.wait()

    async def _send_probe(self) -> bool:
        """Return whether the address answers a probe at all."""
        for _ in range(_TRIES):
            try:
                await self._call_health_check()
            except grpc.aio.AioRpcError as error:
                if self._is_silence(error):
                    continue
            return True
        return False

    def _is_silence(self, error: grpc.aio.AioRpcError) -> bool:
        """Return whether an error is not the peer's own. The peer's own error is an answer."""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return True
        return self._address.is_out_of_reach()

    async def _call_health_check(self) -> None:
        await self._checks(
            _ANYTHING, timeout=self._intervals.probe_deadline_s, metadata=self._token_metadata()
        )

    def _with_jitter(self, seconds: float) -> float:
        return seconds * (0.8 + 0.4 * self._rng.random())
