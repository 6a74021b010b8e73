"""Whether variants can answer: their backends' addresses are asked, as anybody would ask them."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as oip
from coalmine_router.backends.address import Address
from coalmine_router.backends.registry import Backends
from coalmine_router.backends.variant_endpoints import VariantEndpoints, short_troubles
from coalmine_router.table import RouteTable
from coalmine_router.unreachable import why_unreachable

_AT_ONCE_MAX: Final = 8
_DETAILS_MAX: Final = 200
_LAST_TRY_S: Final = 0.5
_UNREACHABLE: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_MODEL_READY: Final = f"/{SERVICE}/ModelReady"
_CHECK: Final = "/grpc.health.v1.Health/Check"


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
    """Asks OIP's ModelReady of the addresses of a variant's backend.

    Where there is no model to ask about, because callers name it or the route is of another
    service, grpc.health.v1 is asked; a backend that doesn't offer it is there all the same.
    """

    def __init__(self, backends: Backends, *, deadline_s: float = 2.0) -> None:
        self._backends = backends
        self._deadline_s = deadline_s

    async def ask(
        self, table: RouteTable, route: str, variant: str, *, patient: bool = False
    ) -> Readiness:
        """Return ready as soon as one address says so, else why each of them can't be called.

        Addresses that nothing is known of yet are waited for, within the deadline. `patient` also
        gives a backend that just came back the deadline's time to be found.
        """
        wanted = table.route(route).variant(variant)
        endpoints = self._backends.find_endpoints(route, variant)
        if endpoints is None:
            return Readiness(ready=False, reason=f"backend '{wanted.backend}' is not known yet")
        model = wanted.model or table.route(route).match.model
        question = _model_question(model, wanted.version) if model else _HEALTH
        asking = _Asking(self._backends, endpoints, question, self._deadline_s)
        await asking.run_for(self._deadline_s, patient=patient)
        if asking.has_missed_some():  # they came just as the time ran out
            await asking.run_for(_LAST_TRY_S, patient=False)
        return asking.readiness()


def _may_become_ready(endpoints: VariantEndpoints, *, patient: bool) -> bool:
    """Return whether an address may come to be ready soon that isn't now."""
    return not endpoints.is_settled or (patient and (endpoints.has_names or not endpoints.ready))


@dataclass(frozen=True, slots=True)
class _Question:
    """What an address is asked, and what an answer means."""

    method: str
    request: bytes
    # Returns why it can't answer; "" where it can. Raises DecodeError.
    why_not: Callable[[bytes], str]
    is_there_without: bool = False


class _Asking:
    """Asks the addresses of one variant that can be called, each once, a few at a time."""

    def __init__(
        self,
        backends: Backends,
        endpoints: VariantEndpoints,
        question: _Question,
        deadline_s: float,
    ) -> None:
        self._backends = backends
        self._endpoints = endpoints
        self._question = question
        self._deadline_s = deadline_s
        self._turns = asyncio.Semaphore(_AT_ONCE_MAX)
        self._why_not: dict[Address, str] = {}
        self._under_way = 0
        self._change = asyncio.Event()

    def readiness(self) -> Readiness:
        """Return what the addresses have said."""
        if "" in self._why_not.values():
            return Readiness(ready=True)
        asked = list(self._why_not)
        reasons = [*self._why_not.values(), *self._endpoints.troubles_except(asked)]
        reason = "; ".join(short_troubles(reasons)) or "no address is known yet"
        return Readiness(ready=False, reason=reason)

    def has_missed_some(self) -> bool:
        """Return whether none can answer of those asked, and one is ready that was not asked."""
        ready = self._endpoints.ready
        return "" not in self._why_not.values() and not self._why_not.keys() >= {*ready}

    async def run_for(self, within_s: float, *, patient: bool) -> None:
        """Ask, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._ask_until_over(patient=patient)

    async def _ask_until_over(self, *, patient: bool) -> None:
        """Return once one can answer: the others aren't waited for; or none is left to ask."""
        self._under_way = 0
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch_reach())]
            while True:
                self._change.clear()
                new = [each for each in self._endpoints.ready if each not in self._why_not]
                tasks += [group.create_task(self._ask_in_turn(each)) for each in new]
                self._note_asked(new)
                if self._is_over(patient=patient):
                    break
                if patient:
                    self._endpoints.look_up_soon()
                await self._change.wait()
            for task in tasks:
                task.cancel()

    def _note_asked(self, new: Sequence[Address]) -> None:
        self._under_way += len(new)
        for each in new:
            silent = f"{each.name} is unreachable: DEADLINE_EXCEEDED: it does not answer"
            self._why_not[each] = silent

    def _is_over(self, *, patient: bool) -> bool:
        if "" in self._why_not.values():
            return True
        return not self._under_way and not _may_become_ready(self._endpoints, patient=patient)

    async def _watch_reach(self) -> None:
        while True:
            await self._backends.wait_for_reach_change()
            self._change.set()

    async def _ask_in_turn(self, address: Address) -> None:
        async with self._turns:
            self._why_not[address] = await self._ask_why_not(address)
        self._under_way -= 1
        self._change.set()

    async def _ask_why_not(self, address: Address) -> str:
        """Return why this address can't answer; "" where it can."""
        question, where = self._question, address.name
        try:
            answer = await address.call(
                question.method,
                question.request,
                metadata=self._endpoints.token_metadata,
                timeout_s=self._deadline_s,
            )
            why = question.why_not(answer or b"")
        except DecodeError:
            return f"{where} can't say: its answer can't be read"
        except grpc.aio.AioRpcError as error:
            if question.is_there_without and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ""
            verb = "is unreachable" if error.code() in _UNREACHABLE else "can't say"
            return f"{where} {verb}: {error.code().name}: {_short_details(error)}"
        return f"{why} on {where}" if why else ""


def _short_details(error: grpc.aio.AioRpcError) -> str:
    return why_unreachable(error.details() or "", _DETAILS_MAX)


def _model_question(name: str, version: str) -> _Question:
    named = f"model '{name}'" + (f" version {version}" if version else "")
    request = oip.ModelReadyRequest(name=name, version=version).SerializeToString()

    def why_model_unready(answer: bytes) -> str:
        ready = oip.ModelReadyResponse.FromString(answer).ready
        return "" if ready else f"{named} is not ready"

    return _Question(_MODEL_READY, request, why_model_unready)


def _why_unwell(answer: bytes) -> str:
    status = health_pb2.HealthCheckResponse.FromString(answer).status
    if status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    names: Sequence[str] = health_pb2.HealthCheckResponse.ServingStatus.keys()
    return f"health is {names[status] if status < len(names) else status}"


_HEALTH: Final = _Question(_CHECK, b"", _why_unwell, is_there_without=True)
