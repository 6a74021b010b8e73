"""From start to exit code: the loop, signals, ready, drain."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, Final

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from coalmine.errors import StartError
from coalmine.process.addresses import check_free, split_address
from coalmine.process.answer_gate import AnswerGate
from coalmine.process.exit_codes import EXIT_CANNOT_START, EXIT_FAILED, EXIT_OK
from coalmine.process.machine import keep_large_blocks
from coalmine.process.parent_pipe import LET_GO, READY, STANDING_BY, watch_parent, write_event
from coalmine.process.private_folder import hide_new_files
from coalmine.process.standard_streams import open_standard_streams, print_error_line

_log = structlog.get_logger(__name__)

# Longer than it takes a caller that has its answer to send its next call.
_HELD_S: Final = 0.1
_CLOSING_S: Final = 0.05
# Of a process that answers to none of them.
_SIGNALS_MAX: Final = 2
# Objects more than went, before garbage is looked for: a request makes hundreds and leaves none.
_COLLECT_AFTER: Final = (5_000, 20, 20)


class Stop:
    """The request that a process ends. Its services wait for it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._asked_s = 0.0
        self.reason = ""
        # Of a process that stands by: whoever had its place has let go.
        self.its_turn = asyncio.Event()

    def ask(self, reason: str) -> None:
        """Begin the end. Asked again by a signal, the process ends at once."""
        if not self.reason:
            self.reason = reason
            self._asked_s = time.monotonic()
            self._event.set()

    @property
    def is_asked(self) -> bool:
        """Whether the end has begun."""
        return self._event.is_set()

    def left_s(self, grace_s: float) -> float:
        """Return what is left of a grace period that began with the end; 0 where none is."""
        return max(0.0, grace_s - (time.monotonic() - self._asked_s)) if self.is_asked else grace_s

    async def wait(self) -> str:
        """Return the reason, once there is one."""
        await self._event.wait()
        return self.reason


async def wait_unless_stopped(stop: Stop, awaited: Coroutine[Any, Any, object]) -> bool:
    """Wait for `awaited` or `stop`, and return whether `awaited` came first."""
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(stop.wait())
        waiting = tasks.create_task(awaited)
        await asyncio.wait({stopping, waiting}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        waiting.cancel()
    return not stop.is_asked


def run(main: Callable[[Stop], Awaitable[None]], *, with_parent: bool = False) -> int:
    """Run `main` on a new loop until it returns; return the process's exit code.

    SIGTERM and SIGINT ask it to stop. A second one ends the process at once. `with_parent` asks it
    to stop when standard input closes, because the parent is gone then. A StartError becomes one
    line on standard error and exit code 2; one without a text was said by another process. Only
    this user can read the files that the process makes.
    """
    signals = _StopSignals()

    async def run_main() -> None:
        stop = Stop()
        signals.install(stop)
        if with_parent:
            watch_parent(its_turn=stop.its_turn.set, gone=lambda: stop.ask("parent gone"))
        await main(stop)

    open_standard_streams()
    keep_large_blocks()
    mask = hide_new_files()
    cannot_start: list[BaseException] = []
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_main())
    except* StartError as group:
        cannot_start = _leaf_errors(group)
    finally:
        os.umask(mask)
    for error in filter(str, cannot_start):
        print_error_line(str(error))
    return EXIT_CANNOT_START if cannot_start else EXIT_OK


def announce(**addresses: str) -> None:
    """Say on standard output, in one JSON line, that this process is ready, and where.

    Scripts, supervisors and tests read it.
    """
    _freeze_objects()
    write_event(READY, **addresses)
    _log.info("ready", **addresses)


async def stand_by(stop: Stop) -> bool:
    """Tell the parent that this process can take over; return whether it may.

    Returns once the other process has let go, or this one is asked to stop.
    """
    _freeze_objects()
    write_event(STANDING_BY)
    return await wait_unless_stopped(stop, stop.its_turn.wait())


def yield_place() -> None:
    """Tell the parent that another process can take this one's place now."""
    write_event(LET_GO)


def _freeze_objects() -> None:
    """Take all objects so far out of garbage collection: they live as long as the process.

    With torch loaded, a full collection stopped every request for 50 to 250 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def listen(
    server: grpc.aio.Server,
    address: str,
    credentials: grpc.ServerCredentials | None = None,
    *,
    shared: bool = False,
) -> str:
    """Bind `server` to `address` and return the address with its real port.

    `shared`: other processes of ours listen there too, so a taken port is no error.
    Raises StartError.
    """
    if not shared:
        check_free(address)
    port = bind(server, address, credentials)
    return f"{address.rpartition(':')[0]}:{port}" if split_address(address)[1] == 0 else address


def bind(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    """Bind `server` to `address`, also to a unix: one; return the port. Raises StartError."""
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}: {error}") from None


async def drain(
    server: grpc.aio.Server,
    health: health_aio.HealthServicer | None,
    *,
    grace_s: float,
    gate: AnswerGate | None = None,
    refuse: Callable[[], None] | None = None,
) -> None:
    """Send callers away, let calls in flight finish for `grace_s` at most, then cancel them.

    `gate` holds answers while the server stops taking calls. A caller then gets its answer, and
    sends its next call over a new connection, to whichever process listens there by then. `refuse`
    is called once no new call can arrive. It ends streams, which would go on.
    """
    if health is not None:
        await health.enter_graceful_shutdown()
    if gate is not None:
        gate.begin()
        await asyncio.sleep(min(_HELD_S, grace_s / 4))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.stop(grace_s))
        # The port is closed by then, where answers are followed by new connections.
        await asyncio.sleep(min(_CLOSING_S, grace_s / 4))
        if refuse is not None:
            refuse()
        if gate is not None:
            gate.end()


async def set_serving(health: health_aio.HealthServicer, service: str, *, serving: bool) -> None:
    """Tell grpc.health.v1 whether `service` serves."""
    status = health_pb2.HealthCheckResponse
    await health.set(service, status.SERVING if serving else status.NOT_SERVING)


# ---------------------------------------------------------------- signals


class _StopSignals:
    """SIGTERM and SIGINT: the first asks to stop, a second one ends the process at once.

    They are Python's handlers, not the loop's: those are gone with the loop, and a second Ctrl-C
    comes when it likes.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Stop | None = None
        self._count = 0

    def install(self, stop: Stop) -> None:
        """Have the signals ask `stop` from now on, on the running loop."""
        self._loop, self._stop = asyncio.get_running_loop(), stop
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._handle_signal)

    def _handle_signal(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        name = signal.Signals(number).name
        try:
            assert self._loop is not None  # noqa: S101 - set by whoever has installed this
            self._loop.call_soon_threadsafe(self._ask_or_exit, name)
        except RuntimeError:  # the loop is closed: the process ends already
            os._exit(EXIT_FAILED)
        if self._count > _SIGNALS_MAX:  # the loop doesn't go on
            os._exit(EXIT_FAILED)

    def _ask_or_exit(self, name: str) -> None:
        assert self._stop is not None  # noqa: S101 - as above
        if self._stop.is_asked:
            _log.warning("stopped_at_once", signal=name)
            os._exit(EXIT_FAILED)
        self._stop.ask(name)


def _leaf_errors(group: BaseExceptionGroup[StartError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaf_errors(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
