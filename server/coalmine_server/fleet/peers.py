"""The other workers of the same server: models load in all of them, and figures add up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, Final, Protocol, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from coalmine.errors import PartlyDone, reason_of
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.limits import MESSAGE_LIMITS
from coalmine.process import lifecycle
from coalmine.process.blocking_thread import run_in_thread
from coalmine_server.extensions import ModelLoading
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
PeerMethod = Callable[[Any], Awaitable[Answer]]


class LocalLoading(ModelLoading, Protocol):
    """Loads and unloads in this process; a caller that goes away leaves no change half done."""

    async def carry_out(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change of several steps."""
        ...


class PeerWorkers:
    """The other workers, each over a socket of its own.

    Each call opens a new channel: a channel remembers for a second that it couldn't connect, and a
    worker that came back meanwhile would miss a change.
    """

    def __init__(self, slot: WorkerSlot) -> None:
        self._slot = slot

    async def call_all(
        self, method: PeerMethod[Answer]
    ) -> dict[int, Answer | grpc.aio.AioRpcError]:
        """Call a method of each worker; return its answer or its error, by worker."""
        async with asyncio.TaskGroup() as tasks:
            tasks_by_worker = {
                index: tasks.create_task(_call_peer(self._slot.socket_address(index), method))
                for index in self._slot.others()
            }
        return {index: task.result() for index, task in tasks_by_worker.items()}


async def _call_peer(socket: str, method: PeerMethod[Answer]) -> Answer | grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(socket, options=_CHANNEL) as channel:
        try:
            return await method(pb_grpc.GRPCInferenceServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            return error


@contextlib.asynccontextmanager
async def answer_peers(
    slot: WorkerSlot, servicer: pb_grpc.GRPCInferenceServiceServicer
) -> AsyncIterator[None]:
    """Answer the other workers within this block."""
    server = grpc.aio.server(options=MESSAGE_LIMITS)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    lifecycle.bind(server, slot.own_socket_address)
    await server.start()
    slot.take_over()
    try:
        yield
    finally:
        await server.stop(0)


class FleetLoading:
    """Loads and unloads in all workers: here first, so a change that fails harms no other."""

    def __init__(
        self, here: LocalLoading, peers: PeerWorkers, record: LoadRecord, index: int
    ) -> None:
        self._here = here
        self._peers = peers
        self._record = record
        self._index = index

    async def load(self, name: str) -> None:
        """Make a model what its folder says. Raises NotFound, LoadFailed or PartlyDone."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        there = methodcaller("RepositoryModelLoad", request, timeout=_CHANGE_S)
        change = self._change_everywhere(name, self._here.load, there, is_unloaded=False)
        await self._here.carry_out(change)

    async def unload(self, name: str) -> None:
        """Serve a model no more. Raises NotFound or PartlyDone."""
        request = pb.RepositoryModelUnloadRequest(model_name=name)
        there = methodcaller("RepositoryModelUnload", request, timeout=_CHANGE_S)
        change = self._change_everywhere(name, self._here.unload, there, is_unloaded=True)
        await self._here.carry_out(change)

    async def _change_everywhere(
        self,
        name: str,
        here: Callable[[str], Awaitable[None]],
        there: PeerMethod[Any],
        *,
        is_unloaded: bool,
    ) -> None:
        async with self._record.take_turn(wait_s=_TURN_S):
            await here(name)
            # Before the others change: a worker that starts just now reads it.
            unrecorded = await self._record_change(name, is_unloaded=is_unloaded)
            self._require_all_changed(name, await self._peers.call_all(there))
            if unrecorded:
                raise PartlyDone(
                    f"model '{name}': changed in every worker, but one that starts later won't "
                    f"know: {unrecorded}"
                )

    async def _record_change(self, name: str, *, is_unloaded: bool) -> str:
        """Record the change; return why that failed, or ""."""
        try:
            await run_in_thread(partial(self._record.record_change, name, is_unloaded=is_unloaded))
        except OSError as error:
            return reason_of(error)
        return ""

    def _require_all_changed(self, name: str, answers: Mapping[int, Any]) -> None:
        """Raise PartlyDone where a worker that is up has not made the change."""
        failed = {}
        for index, answer in answers.items():
            if not isinstance(answer, grpc.aio.AioRpcError):
                continue
            if answer.code() is grpc.StatusCode.UNAVAILABLE:  # it follows when it is back
                _log.warning("worker_not_told", model=name, peer=index, reason=answer.details())
            else:
                failed[index] = answer.details() or answer.code().name
        if failed:
            done = {self._index, *answers} - set(failed)
            raise PartlyDone(partly_done_text(name, sorted(done), failed))


def partly_done_text(name: str, done: Sequence[int], failed: Mapping[int, str]) -> str:
    """Return which workers made a change, and why others didn't."""
    there = ", ".join(str(each) for each in done)
    why = "; ".join(f"worker {index}: {text}" for index, text in sorted(failed.items()))
    return f"model '{name}': changed in worker {there}, not in all; ask again. {why}"


class FleetOverview:
    """The index and the statistics of all workers that answer."""

    def __init__(self, own: Overview, peers: PeerWorkers, index: int) -> None:
        self._own = own
        self._peers = peers
        self._index = index

    async def index(self) -> Sequence[Row]:
        """Return every version; it is READY where it is in every worker."""
        request = pb.RepositoryIndexRequest()
        own = await self._own.index()
        answers = await self._call_peers("RepositoryIndex", request)
        rows = {self._index: own, **{index: each.models for index, each in answers.items()}}
        return merged_index(dict(sorted(rows.items())))

    async def statistics(self, name: str, version: str) -> Sequence[pb.ModelStatistics]:
        """Return the sums over all workers. Raises NotFound where this one knows no such model."""
        request = pb.ModelStatisticsRequest(name=name, version=version)
        own = await self._own.statistics(name, version)
        answers = await self._call_peers("ModelStatistics", request)
        return merged_statistics([own, *(each.model_stats for each in answers.values())])

    async def _call_peers(self, method: str, request: Message) -> dict[int, Any]:
        """Return the answers of the peers that answer, by worker."""
        found = {}
        call = methodcaller(method, request, timeout=_READ_S)
        for index, answer in (await self._peers.call_all(call)).items():
            if isinstance(answer, grpc.aio.AioRpcError):
                _log.warning("worker_did_not_answer", peer=index, reason=answer.details())
            else:
                found[index] = answer
        return found
