"""Whether variants can answer: their backends are asked, as anybody would ask them."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as oip
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine_router.channels import Channels, address_of
from coalmine_router.table import Backend, RouteTable
from coalmine_router.unreachable import why_unreachable

_REASONS_MAX: Final = 3
_DETAILS_MAX: Final = 200
_UNREACHABLE: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a variant is ready; if not, why."""

    ready: bool
    reason: str = ""


class AsksReadiness(Protocol):
    """Finds out whether a variant can answer."""

    async def ask(
        self, table: RouteTable, route: str, variant: str, *, patient: bool = False
    ) -> Readiness:
        """Return what its backend says now."""
        ...


class ReadinessCheck:
    """Asks OIP's ModelReady on the targets of a variant's backend.

    Where there is no model to ask about, because callers name it or the route is of another
    service, grpc.health.v1 is asked; a backend that doesn't offer it is there all the same.
    """

    def __init__(self, channels: Channels, *, deadline_s: float = 2.0) -> None:
        self._channels = channels
        self._deadline_s = deadline_s

    async def ask(
        self, table: RouteTable, route: str, variant: str, *, patient: bool = False
    ) -> Readiness:
        """Return ready as soon as one target says so, else what each of them said.

        `patient` gives a backend that just came back the deadline's time to connect.
        """
        wanted = table.route(route).variant(variant)
        name = wanted.model or table.route(route).match.model
        model = oip.ModelReadyRequest(name=name, version=wanted.version) if name else None
        backend = table.by_backend[wanted.backend]
        answers: asyncio.Queue[str] = asyncio.Queue(maxsize=len(backend.targets))
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(self._answer(backend, target, model, answers, patient=patient))
                for target in backend.targets
            ]
            reasons = []
            for _ in asked:
                reasons.append(await answers.get())
                if not reasons[-1]:
                    break
            for each in asked:
                each.cancel()
        return _concluded(reasons)

    async def _answer(
        self,
        backend: Backend,
        target: str,
        model: oip.ModelReadyRequest | None,
        to: asyncio.Queue[str],
        *,
        patient: bool,
    ) -> None:
        to.put_nowait(await self._why_not(backend, target, model, patient=patient))

    async def _why_not(
        self, backend: Backend, target: str, model: oip.ModelReadyRequest | None, *, patient: bool
    ) -> str:
        """Return why this target can't answer, for the model if there is one; "" where it can."""
        where = address_of(target)
        try:
            options = {
                "timeout": self._deadline_s,
                "wait_for_ready": patient,
                "metadata": self._channels.shown(backend),
            }
            channel = self._channels.channel(backend, target)
            why = await (_unready(channel, model, options) if model else _unwell(channel, options))
        except StartError as error:
            return f"{where} can't be called: {error}"
        except grpc.aio.AioRpcError as error:
            verb = "is unreachable" if error.code() in _UNREACHABLE else "can't say"
            return f"{where} {verb}: {error.code().name}: {_details(error)}"
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            return f"{where} is unreachable: the router is stopping"
        return f"{why} on {where}" if why else ""


def _details(error: grpc.aio.AioRpcError) -> str:
    return why_unreachable(error.details() or "", _DETAILS_MAX)


async def _unready(
    channel: grpc.aio.Channel, model: oip.ModelReadyRequest, options: dict[str, Any]
) -> str:
    answer = await GRPCInferenceServiceStub(channel).ModelReady(model, **options)
    return "" if answer.ready else f"{_named(model)} is not ready"


async def _unwell(channel: grpc.aio.Channel, options: dict[str, Any]) -> str:
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), **options
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return ""
        raise
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"health is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"


def _named(model: oip.ModelReadyRequest) -> str:
    return f"model '{model.name}'" + (f" version {model.version}" if model.version else "")


def _concluded(reasons: list[str]) -> Readiness:
    if "" in reasons:
        return Readiness(ready=True)
    more = len(reasons) - _REASONS_MAX
    told = "; ".join(reasons[:_REASONS_MAX]) + (f"; and {more} more" if more > 0 else "")
    return Readiness(ready=False, reason=told)
