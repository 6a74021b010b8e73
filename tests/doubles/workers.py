"""Workers of one server in this process: real sockets between them, doubles behind."""

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coalmine.errors import CoalmineError
from coalmine.inference import inference_pb2 as pb
from coalmine.process.answer_gate import AnswerGate
from coalmine_server.figures.metrics import Metrics
from coalmine_server.fleet.member import FleetMember
from coalmine_server.fleet.worker_slot import WorkerSlot
from coalmine_server.overview import Row
from coalmine_server.registry import Registry
from tests.doubles.servicers import servicer_over


@dataclass
class Control:
    """Remembers what it was told to do, and fails as it is told to."""

    done: list[str] = field(default_factory=list)
    fails: CoalmineError | None = None

    async def load(self, name: str) -> None:
        self._do(f"load {name}")

    async def unload(self, name: str) -> None:
        self._do(f"unload {name}")

    async def remove(self, name: str) -> None:
        self._do(f"remove {name}")

    async def carry_out(self, change: Coroutine[Any, Any, None]) -> None:
        await change

    def _do(self, what: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.done.append(what)


class Known:
    """An overview with rows and statistics that are given."""

    def __init__(self, state: str = "READY", successes: int = 1) -> None:
        self.state = state
        self.successes = successes

    async def index(self) -> Sequence[Row]:
        return [Row(name="m", version="1", state=self.state)]

    async def statistics(self, name: str, version: str) -> Sequence[pb.ModelStatistics]:
        message = pb.ModelStatistics(name="m", version="1", inference_count=self.successes)
        return [message]


class Worker:
    """One of them; `is_up` within `joined`."""

    def __init__(self, folder: Path, index: int, workers: int) -> None:
        self.control = Control()
        self.known = Known()
        self.member = FleetMember(WorkerSlot(index, workers, cores=1, folder=folder))
        self.loading = self.member.loading_of(self.control)
        self.overview = self.member.overview_with(self.known)

    @asynccontextmanager
    async def join(self) -> AsyncIterator[None]:
        servicer = servicer_over(
            Registry(), self.control, self.known, metrics=Metrics(), gate=AnswerGate()
        )
        async with self.member.join(self.control, servicer):
            yield


@asynccontextmanager
async def joined(folder: Path, count: int) -> AsyncIterator[list[Worker]]:
    """Yield workers that have all joined."""
    workers = [Worker(folder, index, count) for index in range(count)]
    async with AsyncExitStack() as stack:
        for each in workers:
            await stack.enter_async_context(each.join())
        yield workers
