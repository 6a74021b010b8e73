"""`server run --workers N`: starts the workers, starts again what dies, ends them all.

Itself it serves HTTP alone, and loads neither torch nor a model. Workers end when their standard
input closes, so none outlives this process, whatever ends it.
"""

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from coalmine.errors import StartError, reason_of
from coalmine.process import lifecycle
from coalmine.process.addresses import bound_address, check_free, loopback_address, reserve
from coalmine.process.child_process import Child, Command
from coalmine.process.exposition import exposing
from coalmine.process.lifecycle import Stop
from coalmine.process.machine import usable_cores
from coalmine.process.private_folder import open_private, temporary_folder
from coalmine.process.recycling import Recycling
from coalmine_server.config import ServerConfig
from coalmine_server.fleet.metrics import FleetMetrics, WorkerState, ask_any_serving
from coalmine_server.fleet.worker_slot import WorkerSlot, WorkerStart, write_worker_start

PROGRAM: Final = (sys.executable, "-m", "coalmine_server")

# Of the grace period, for requests in flight; the rest is for the process to end in.
_REQUESTS: Final = 0.8
_STARTS_S: Final = 120.0
_ENDS_S: Final = 2.0  # with a forward that never returns, this is when the worker is killed
_SOCKET_PATH_MAX: Final = 90  # of 107, without the socket's own name


def run(config: ServerConfig) -> int:
    """Serve with `config.workers` processes until a signal; return the exit code."""
    return lifecycle.run(Fleet(config, cores=usable_cores()).serve)


class Fleet:
    """The workers of one server, from their start to their end."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        cores: int,
        announce: Callable[..., None] = lifecycle.announce,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._config = config
        self._cores = cores
        self._announce = announce
        self._program = program
        self._workers: list[Child] = []
        self._recycling = Recycling(config.worker_bounds, self._workers, self._replace_worker)

    async def serve(self, stop: Stop) -> None:
        """Keep the workers until `stop`. Raises StartError where one can't start."""
        config = self._config
        if config.traces is not None:
            _make_trace_folder(config.traces)
        with contextlib.ExitStack() as held:
            # Held, not listened on: the ports stay ours while workers come and go.
            listen = held.enter_context(_reserve_port(config.listen))
            admin = config.admin_listen and held.enter_context(_reserve_port(config.admin_listen))
            http = held.enter_context(self._serve_metrics(stop))
            folder = held.enter_context(_make_sockets_folder())
            self._workers += self._build_workers(listen, admin, folder)
            addresses = {"grpc": listen, **({"admin": admin} if admin else {}), "http": http}
            await self._keep_workers(stop, lambda: self._announce(**addresses))

    async def _keep_workers(self, stop: Stop, ready: Callable[[], None]) -> None:
        """Run the first worker, the others once it is ready: what is wrong is said once."""
        first, *others = self._workers
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.keep_running())
            if await lifecycle.wait_unless_stopped(stop, first.ready.wait()):
                for each in others:
                    tasks.create_task(each.keep_running())
                if await lifecycle.wait_unless_stopped(stop, _wait_all_ready(others)):
                    ready()
                    await lifecycle.wait_unless_stopped(stop, self._recycling.run())
            await stop.wait()
            async with asyncio.TaskGroup() as ending:
                for each in self._workers:
                    ending.create_task(each.end())

    async def _replace_worker(self, worker: Child) -> bool:
        # It loads all models before it is ready.
        return await worker.replace(within_s=max(_STARTS_S, 2 * self._config.loads.timeout_s))

    def _build_workers(self, listen: str, admin: str | None, folder: Path) -> list[Child]:
        config = dataclasses.replace(self._config, listen=listen, admin_listen=admin)
        cores = max(1, self._cores // config.workers)
        slots = [WorkerSlot(n, config.workers, cores, folder) for n in range(config.workers)]
        patience_s = self._config.grace_s + _ENDS_S
        return [Child(self._write_command(config, slot), patience_s) for slot in slots]

    def _write_command(self, config: ServerConfig, slot: WorkerSlot) -> Command:
        """Return how a worker is started: by a file with its own part of the configuration."""
        name = f"worker-{slot.index}"
        own = dataclasses.replace(
            config,
            http=loopback_address(),
            grace_s=config.grace_s * _REQUESTS,
            # Each keeps so many files, and removes what is older.
            traces=None if config.traces is None else config.traces / name,
        )
        return Command(name, (str(write_worker_start(WorkerStart(own, slot))),), self._program)

    @contextlib.contextmanager
    def _serve_metrics(self, stop: Stop) -> Iterator[str]:
        """Yield the address of /metrics and health over HTTP, which answers until the end."""
        registry = CollectorRegistry()
        registry.register(FleetMetrics(self._worker_states))
        with exposing(
            self._config.http,
            registry,
            lambda: not stop.is_asked and ask_any_serving(self._worker_states()),
        ) as http:
            yield http

    def _worker_states(self) -> dict[int, WorkerState]:
        return {
            index: WorkerState(
                each.announcement["http"] if each.is_up else None,
                each.restarts,
                self._recycling.recycled[each.name],
                each.failures,
            )
            for index, each in enumerate(self._workers)
        }


async def _wait_all_ready(workers: Sequence[Child]) -> None:
    for each in workers:
        await each.ready.wait()


def _make_trace_folder(folder: Path) -> None:
    """Make the folder in which each worker has its own. Raises StartError."""
    try:
        open_private(folder, ["traces-*.jsonl"])
    except OSError as error:
        raise StartError(f"trace folder {folder}: {reason_of(error)}") from None


@contextlib.contextmanager
def _reserve_port(address: str) -> Iterator[str]:
    """Yield `address` with a real port, which is ours and our workers' alone."""
    check_free(address)
    with reserve(address, shared=True) as held:
        yield bound_address(held)


@contextlib.contextmanager
def _make_sockets_folder() -> Iterator[Path]:
    """Yield a folder that nobody else can look into, gone afterwards. Raises StartError."""
    with temporary_folder("coalmine-") as folder:
        if len(os.fsencode(folder)) > _SOCKET_PATH_MAX:
            raise StartError(f"TMPDIR is too long for the workers' sockets: {folder}")
        yield folder
