"""Starts real processes, waits until they are ready, and always stops them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from coalmine.process.early_signals import end_at_signals
from coalmine.process.exit_codes import INTERRUPTED
from coalmine_demo.demo_failure import StepFailed

READY_S: Final = 60.0
STOP_S: Final = 20.0

_PYTHON: Final = (sys.executable, "-P")
PROGRAM: Final = (*_PYTHON, "-c", "from coalmine_client.cli import main; main()")


class DemoProcesses:
    """The demo's processes; leaving the `async with` stops them all.

    Each gets a session of its own: Ctrl-C reaches the demo alone, which then stops them in order.
    Their standard error goes to `logs`/NAME.log.
    """

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self._logs = logs
        self._environ = dict(environ)
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *arguments: str) -> dict[str, str]:
        """Start `coalmine ARGUMENTS`; return what it announces when it is ready.

        Raises StepFailed.
        """
        process = await self._spawn(name, (*PROGRAM, *arguments))
        self._running[name] = process
        try:
            async with asyncio.timeout(READY_S):
                line = await _read_first_line(process.stdout)
        except TimeoutError:
            raise self._step_failed(name, f"was not ready after {READY_S:.0f} s") from None
        if not line:
            raise self._step_failed(name, f"ended with exit code {await process.wait()}")
        return {key: str(value) for key, value in json.loads(line).items()}

    async def stop(self, name: str) -> int:
        """Ask a process to end; return its exit code, -9 if it had to be killed."""
        code = await _end_process(self._running[name])
        del self._running[name]
        return code

    async def call(self, *arguments: str) -> str:
        """Run `coalmine ARGUMENTS` to its end; return its output. Raises StepFailed."""
        return await self._run_checked(f"coalmine {arguments[0]}", (*PROGRAM, *arguments))

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run `coalmine ARGUMENTS` to its end; return its exit code, and its output."""
        return await self._run_to_end(f"coalmine {arguments[0]}", (*PROGRAM, *arguments))

    async def run_module(self, name: str, *arguments: str) -> str:
        """Run `python -m NAME ARGUMENTS` to its end; return its output. Raises StepFailed."""
        return await self._run_checked(name, (*_PYTHON, "-m", name, *arguments))

    def set_environment(self, **environ: str) -> None:
        """Give the processes that are started from now on these variables."""
        self._environ.update(environ)

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Newest first: what forwards goes before what it forwards to.
        try:
            for process in reversed(self._running.values()):
                await _end_process(process)
        except asyncio.CancelledError:
            for process in self._running.values():
                _kill(process)
            raise

    async def _run_checked(self, name: str, command: tuple[str, ...]) -> str:
        code, output = await self._run_to_end(name, command)
        if code:
            raise self._step_failed(name, f"ended with exit code {code}")
        return output

    async def _run_to_end(self, name: str, command: tuple[str, ...]) -> tuple[int, str]:
        process = await self._spawn(name, command)
        try:
            output, _ = await process.communicate()
        finally:
            code = await _end_process(process)
        return code, output.decode()

    async def _spawn(self, name: str, command: tuple[str, ...]) -> asyncio.subprocess.Process:
        with self._log_path(name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )

    def _step_failed(self, name: str, how: str) -> StepFailed:
        log = self._log_path(name)
        said = log.read_text(errors="replace").strip().splitlines()[-1:]
        return StepFailed(f"{name} {how}: {said[0] if said else 'it said nothing'} (see {log})")

    def _log_path(self, name: str) -> Path:
        return self._logs / f"{name.replace(' ', '-')}.log"


def run_unless_interrupted(telling: Coroutine[Any, Any, int]) -> int:
    """Return the exit code. After Ctrl-C or SIGTERM, all processes are stopped before."""

    async def run_cancellable() -> int:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            told = group.create_task(telling)
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(each, told.cancel)
        return told.result()

    try:
        return asyncio.run(run_cancellable())
    except asyncio.CancelledError:
        return INTERRUPTED
    finally:
        end_at_signals()  # the loop has given them back to Python


async def _read_first_line(output: asyncio.StreamReader | None) -> bytes:
    return await output.readline() if output else b""


async def _end_process(process: asyncio.subprocess.Process) -> int:
    """Ask a process to end, and kill it if it does not in time; return its exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            _kill(process)
        except asyncio.CancelledError:
            _kill(process)
            raise
    return await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process and those that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
