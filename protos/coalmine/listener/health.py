"""grpc.health.v1, for servers that end while they are watched."""

import asyncio
from typing import Any, Final

from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health import aio as health_aio

from coalmine.listener.stream_limit import StreamLimit
from coalmine.status import Context, answering

# A proxy has one for each server, and one for each model that it calls there. Nobody needs a token.
WATCHES_MAX: Final = 2_048


class Health(health_aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """The library's servicer, with three changes for watchers.

    In the library, a watcher that leaves takes the others' changes with it, and one that stays
    delays the server's end by the whole grace period. Here a watch ends once the server's end has
    begun. And `limit` bounds the number of watches.
    """

    def __init__(self, *, watches_max: int = WATCHES_MAX) -> None:
        super().__init__()
        self._changed = asyncio.Condition()
        self.limit = StreamLimit("health watches", watches_max)

    # As the library has it, but for a request that can't be read.
    Check: Any = answering(health_aio.HealthServicer.Check)

    @answering
    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:
        """Write the service's status whenever it changes, until the server ends."""
        with self.limit.admit():
            await self._write_changes(request, context)

    async def _write_changes(self, request: pb.HealthCheckRequest, context: Context) -> None:
        told: Any = None
        while True:
            status = self._status_of(request.service)
            if status != told:
                await context.write(pb.HealthCheckResponse(status=status))
                told = status
            if self._gracefully_shutting_down and self._status_of(request.service) == told:
                return
            await self._wait_for_change(request.service, told)

    async def set(self, service: str, status: Any) -> None:
        """Set the status of a service, and wake its watchers."""
        await super().set(service, status)
        await self._notify_watches()

    async def enter_graceful_shutdown(self) -> None:
        """Set every service to NOT_SERVING, for good. The watches then end."""
        await super().enter_graceful_shutdown()
        await self._notify_watches()

    def _status_of(self, service: str) -> Any:
        return self._server_status.get(service, pb.HealthCheckResponse.SERVICE_UNKNOWN)

    async def _wait_for_change(self, service: str, told: Any) -> None:
        """Return once the status differs from `told`, or the end has begun."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._gracefully_shutting_down or self._status_of(service) != told
            )

    async def _notify_watches(self) -> None:
        async with self._changed:
            self._changed.notify_all()
