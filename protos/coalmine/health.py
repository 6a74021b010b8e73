"""grpc.health.v1, for servers that end while they are watched."""

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health import aio as health_aio

from coalmine.status import Context


class Health(health_aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """The library's servicer, but for two things that it does to whoever watches.

    There a watcher that goes takes the others' news with it, and one that stays holds up the end
    of the server for the whole grace: here a watch ends by itself once the end has begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Condition()

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:
        """Write the service's status whenever it is another, until the server ends."""
        told: Any = None
        while True:
            status = self._status(request.service)
            if status != told:
                await context.write(pb.HealthCheckResponse(status=status))
                told = status
            if self._gracefully_shutting_down and self._status(request.service) == told:
                return
            await self._news(request.service, told)

    async def set(self, service: str, status: Any) -> None:
        """Set the status of a service, and tell whoever watches it."""
        await super().set(service, status)
        await self._tell()

    async def enter_graceful_shutdown(self) -> None:
        """Serve no more, for good; whoever watches is told, and let go."""
        await super().enter_graceful_shutdown()
        await self._tell()

    def _status(self, service: str) -> Any:
        return self._server_status.get(service, pb.HealthCheckResponse.SERVICE_UNKNOWN)

    async def _news(self, service: str, told: Any) -> None:
        """Return once the status is another than `told`, or the end has begun."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._gracefully_shutting_down or self._status(service) != told
            )

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
