"""Calls and streams that their callers give up, through a router to a server: what it leaves.

`python -m tests.soak.cancelled --calls 100000 --streams 20000` prints how much memory proxy and
server hold, before, at half, and at the end. Beside them goes a caller who waits for its answers.
Exit code 0: none of its calls failed, and the second half added at most 10 MiB to either process.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import yaml

from coalmine.process.recycling import resident_mib
from tests.doubles.processes import Started, started
from tests.doubles.router_setup import REQUEST, configuration
from tests.doubles.server_process import server_of, written

_SERVICE: Final = "/inference.GRPCInferenceService"
_CONNECTIONS: Final = 4
_AT_ONCE: Final = 64
_WARM_UP: Final = 0.05
# Rows wait so long for others; a caller who gives up has waited for less.
_WAITS_S: Final = 0.1
# Longer than the processes take to hand back to the system what is free.
_SETTLES_S: Final = 12.0
_GROWTH_MAX_MIB: Final = 10.0


@dataclass
class Held:
    """The memory of proxy and server, in MiB, at each point; and the steady caller's calls."""

    points: list[dict[str, float]] = field(default_factory=list)
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    recycled: int = 0

    @property
    def second_half(self) -> dict[str, float]:
        """How much the second half added."""
        half, end = self.points[-2:]
        return {name: end[name] - half[name] for name in end}

    @property
    def is_good(self) -> bool:
        """Whether nothing failed, and nothing grew over the bound."""
        return not self.failed and max(self.second_half.values()) <= _GROWTH_MAX_MIB


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="coalmine-cancelled-") as name:
        with _router(Path(name), asked.worker_mib) as (router, server):
            held = asyncio.run(_Callers(router, server, asked).run())
        held.recycled = sum(
            log.read_text().count('"worker_recycled"') for log in (router.log, server.log)
        )
    _show(held, asked)
    return 0 if held.is_good else 1


@contextlib.contextmanager
def _router(folder: Path, worker_mib: int) -> Iterator[tuple[Started, Started]]:
    repository = written("tests.models", folder / "models")
    file = repository / "digits" / "config.yaml"
    batching = {"max_delay": f"{_WAITS_S:g}s"}
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "batching": batching}))
    bound = ("--max-worker-mib", str(worker_mib)) if worker_mib else ()
    environment = {"COALMINE_LOG_FORMAT": "json"}
    with server_of(repository, folder, *bound) as server:
        config = configuration(folder, server.address("grpc"))
        arguments = ("router", "run", "--config", config, *bound)
        with started(*arguments, folder=folder, environment=environment) as router:
            yield router, server


class _Callers:
    """Those who give up, in rounds, and one who doesn't."""

    def __init__(self, router: Started, server: Started, asked: argparse.Namespace) -> None:
        self._router, self._server, self._asked = router, server, asked
        self._chance = random.Random(7)
        self._held = Held()

    async def run(self) -> Held:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with contextlib.AsyncExitStack() as stack:
            opened = [
                grpc.aio.insecure_channel(self._router.address("data"), options=options)
                for _ in range(_CONNECTIONS + 1)
            ]
            steady, *channels = [await stack.enter_async_context(each) for each in opened]
            async with asyncio.TaskGroup() as tasks:
                calling = tasks.create_task(self._call_on(steady))
                for part in (_WARM_UP, 0.5, 0.5):
                    await self._give_up(channels, part)
                    await asyncio.sleep(_SETTLES_S)
                    self._held.points.append(self._memory())
                calling.cancel()
        return self._held

    def _memory(self) -> dict[str, float]:
        # Of a server with a supervisor, its worker.
        [*workers] = self._server.children()
        pids = {"proxy": self._router.child("proxy"), "server": [self._server.pid, *workers][-1]}
        return {name: resident_mib(pid) for name, pid in pids.items()}

    async def _give_up(self, channels: Sequence[grpc.aio.Channel], part: float) -> None:
        calls = [self._call] * int(self._asked.calls * part)
        left = iter([*calls, *[self._stream] * int(self._asked.streams * part)])

        async def one_after_the_other(channel: grpc.aio.Channel) -> None:
            for each in left:
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                    await each(channel)

        async with asyncio.TaskGroup() as tasks:
            for number in range(_AT_ONCE):
                tasks.create_task(one_after_the_other(channels[number % len(channels)]))

    async def _call(self, channel: grpc.aio.Channel) -> None:
        ask: Any = channel.unary_unary(f"{_SERVICE}/ModelInfer")
        call = ask(REQUEST)
        await asyncio.sleep(self._chance.uniform(0, _WAITS_S * 0.8))
        call.cancel()
        await call

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        ask: Any = channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")
        call = ask()
        await call.write(REQUEST)
        if self._chance.random() < 0.5:
            await call.read()
        call.cancel()

    async def _call_on(self, channel: grpc.aio.Channel) -> None:
        ask: Any = channel.unary_unary(f"{_SERVICE}/ModelInfer")
        while True:
            try:
                await ask(REQUEST, timeout=20)
                self._held.answered += 1
            except grpc.aio.AioRpcError as error:
                self._held.failed.append(f"{error.code().name}: {error.details()}")
            await asyncio.sleep(0.02)


def _show(held: Held, asked: argparse.Namespace) -> None:
    print(f"{asked.calls:,} calls and {asked.streams:,} streams given up")
    for name, grown in held.second_half.items():
        seen = ", ".join(f"{each[name]:.1f}" for each in held.points)
        print(f"  {name}: {seen} MiB; the second half added {grown:.1f}")
    print(f"  beside them: {held.answered:,} answered, {len(held.failed)} failed {held.failed[:3]}")
    print(f"  workers recycled: {held.recycled}")
    print("good" if held.is_good else "BAD")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--worker-mib", type=int, default=0, help="recycle workers over this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
