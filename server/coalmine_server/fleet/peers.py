"""The other workers of the same server: changes reach all of them, and figures are of all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import grpc
import structlog

from coalmine.errors import PartlyDone, reason_of
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.limits import MESSAGE_LIMITS
from coalmine.process import lifecycle
from coalmine.process.blocking_thread import in_thread
from coalmine_server.extensions import Changes
from coalmine_server.fleet.load_record import LoadRecord
from coalmine_server.fleet.merge import merged_index, merged_statistics
from coalmine_server.fleet.worker_slot import WorkerSlot
from coalmine_server.overview import Overview, Row

_log = structlog.get_logger(__name__)

_READ_S: Final = 5.0
_CHANGE_S: Final = 600.0
_TURN_S: Final = 60.0
_CHANNEL: Final = (*MESSAGE_LIMITS, ("grpc.use_local_subchannel_pool", 1))

Answer = TypeVar("Answer")
# A method of a worker, called with a time-out.
Ask = Callable[[Any], Awaitable[Answer]]


class CarriesOut(Changes, Protocol):
    """What makes changes in this process; a caller that goes away leaves none half done."""

    async def carry_out(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change of several steps."""
        ...


class Peers:
    """The other workers, each over a socket of its own.

    Connected to anew each time: a channel remembers for a second that nobody was there, and a
    worker that came back within it would miss a change.
    """

    def __init__(self, seat: WorkerSlot) -> None:
        self._seat = seat

    async def ask(self, ask: Ask[Answer]) -> dict[int, Answer | grpc.aio.AioRpcError]:
        """Return what each of them answered or failed with, by worker."""
        async with asyncio.TaskGroup() as tasks:
            asked = {
                index: tasks.create_task(_answer(self._seat.socket(index), ask))
                for index in self._seat.others()
            }
        return {index: task.result() for index, task in asked.items()}


async def _answer(socket: str, ask: Ask[Answer]) -> Answer | grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(socket, options=_CHANNEL) as channel:
        try:
            return await ask(pb_grpc.GRPCInferenceServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            return error


@contextlib.asynccontextmanager
async def hearing(
    seat: WorkerSlot, servicer: pb_grpc.GRPCInferenceServiceServicer
) -> AsyncIterator[None]:
    """Answer the other workers within this block."""
    server = grpc.aio.server(options=MESSAGE_LIMITS)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    lifecycle.bind(server, seat.own_socket)
    await server.start()
    seat.take()
    try:
        yield
    finally:
        await server.stop(0)


class Everywhere:
    """Changes for all workers: made here first, so one that can't be made harms no other."""

    def __init__(self, here: CarriesOut, peers: Peers, ledger: LoadRecord, index: int) -> None:
        self._here = here
        self._peers = peers
        self._ledger = ledger
        self._index = index

    async def load(self, name: str) -> None:
        """Make a model what its folder says. Raises NotFound, LoadFailed or PartlyDone."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        await self._here.carry_out(
            self._change(
                name,
                self._here.load,
                lambda peer: peer.RepositoryModelLoad(request, timeout=_CHANGE_S),
                is_unloaded=False,
            )
        )

    async def unload(self, name: str) -> None:
        """Serve a model no more. Raises NotFound or PartlyDone."""
        request = pb.RepositoryModelUnloadRequest(model_name=name)
        await self._here.carry_out(
            self._change(
                name,
                self._here.unload,
                lambda peer: peer.RepositoryModelUnload(request, timeout=_CHANGE_S),
                is_unloaded=True,
            )
        )

    async def _change(
        self,
        name: str,
        here: Callable[[str], Awaitable[None]],
        there: Ask[Any],
        *,
        is_unloaded: bool,
    ) -> None:
        async with self._ledger.turn(wait_s=_TURN_S):
            await here(name)
            # Before the others are told: who starts just now reads it, who is up is told.
            not_noted = await self._note(name, is_unloaded=is_unloaded)
            self._check(name, await self._peers.ask(there))
            if not_noted:
                raise PartlyDone(
                    f"model '{name}': changed in every worker, but one that starts later won't "
                    f"know: {not_noted}"
                )

    async def _note(self, name: str, *, is_unloaded: bool) -> str:
        """Write the change down; return why that failed, or nothing."""
        try:
            await in_thread(partial(self._ledger.note, name, is_unloaded=is_unloaded))
        except OSError as error:
            return reason_of(error)
        return ""

    def _check(self, name: str, told: Mapping[int, Any]) -> None:
        """Raise PartlyDone where a worker that is up has not made the change."""
        failed = {}
        for index, answer in told.items():
            if not isinstance(answer, grpc.aio.AioRpcError):
                continue
            if answer.code() is grpc.StatusCode.UNAVAILABLE:  # it follows when it is back
                _log.warning("worker_not_told", model=name, peer=index, reason=answer.details())
            else:
                failed[index] = answer.details() or answer.code().name
        if failed:
            done = {self._index, *told} - set(failed)
            raise PartlyDone(partly_done(name, sorted(done), failed))


def partly_done(name: str, done: Sequence[int], failed: Mapping[int, str]) -> str:
    """Return what became of a change, worker by worker."""
    there = ", ".join(str(each) for each in done)
    why = "; ".join(f"worker {index}: {text}" for index, text in sorted(failed.items()))
    return f"model '{name}': changed in worker {there}, not in all; ask again. {why}"


class OfAll:
    """The index and the statistics of all workers; of one that does not answer, its part lacks."""

    def __init__(self, own: Overview, peers: Peers, index: int) -> None:
        self._own = own
        self._peers = peers
        self._index = index

    async def index(self) -> Sequence[Row]:
        """Return every version; READY is what is so in every worker."""
        request = pb.RepositoryIndexRequest()
        own = await self._own.index()
        said = await self._asked(lambda peer: peer.RepositoryIndex(request, timeout=_READ_S))
        rows = {self._index: own, **{index: each.models for index, each in said.items()}}
        return merged_index(dict(sorted(rows.items())))

    async def statistics(self, name: str, version: str) -> Sequence[pb.ModelStatistics]:
        """Return the sums over all workers. Raises NotFound where this one knows no such model."""
        request = pb.ModelStatisticsRequest(name=name, version=version)
        own = await self._own.statistics(name, version)
        said = await self._asked(lambda peer: peer.ModelStatistics(request, timeout=_READ_S))
        return merged_statistics([own, *(each.model_stats for each in said.values())])

    async def _asked(self, ask: Ask[Any]) -> dict[int, Any]:
        answers = await self._peers.ask(ask)
        for index, answer in answers.items():
            if isinstance(answer, grpc.aio.AioRpcError):
                _log.warning("worker_did_not_answer", peer=index, reason=answer.details())
        return {
            index: answer
            for index, answer in answers.items()
            if not isinstance(answer, grpc.aio.AioRpcError)
        }
