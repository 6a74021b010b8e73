"""Whether variants can answer: their backends are asked, as anybody would ask them."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from coalmine.inference import inference_pb2 as oip
from coalmine.inference.inference_pb2_grpc import GRPCInferenceServiceStub
from coalmine_router.channels import Channels, address_of
from coalmine_router.table import RouteTable

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
    """Asks OIP's ModelReady on the targets of a variant's backend."""

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
        model = oip.ModelReadyRequest(
            name=wanted.model or table.route(route).model, version=wanted.version
        )
        targets = table.by_backend[wanted.backend].targets
        answers: asyncio.Queue[str] = asyncio.Queue(maxsize=len(targets))
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(self._answer(target, model, answers, patient=patient))
                for target in targets
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
        self, target: str, model: oip.ModelReadyRequest, to: asyncio.Queue[str], *, patient: bool
    ) -> None:
        to.put_nowait(await self._why_not(target, model, patient=patient))

    async def _why_not(self, target: str, model: oip.ModelReadyRequest, *, patient: bool) -> str:
        """Return why this target can't answer for the model; "" where it can."""
        where = address_of(target)
        stub = GRPCInferenceServiceStub(self._channels.channel(target))
        try:
            answer = await stub.ModelReady(model, timeout=self._deadline_s, wait_for_ready=patient)
        except grpc.aio.AioRpcError as error:
            verb = "is unreachable" if error.code() in _UNREACHABLE else "can't say"
            return f"{where} {verb}: {error.code().name}: {(error.details() or '')[:_DETAILS_MAX]}"
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            return f"{where} is unreachable: the router is stopping"
        return "" if answer.ready else f"{_named(model)} is not ready on {where}"


def _named(model: oip.ModelReadyRequest) -> str:
    return f"model '{model.name}'" + (f" version {model.version}" if model.version else "")


def _concluded(reasons: list[str]) -> Readiness:
    if "" in reasons:
        return Readiness(ready=True)
    more = len(reasons) - _REASONS_MAX
    told = "; ".join(reasons[:_REASONS_MAX]) + (f"; and {more} more" if more > 0 else "")
    return Readiness(ready=False, reason=told)
