"""The order in which the router's processes start, with programs in the place of our own."""

import asyncio
import sys
from pathlib import Path

from structlog.testing import capture_logs

from coalmine.process.child_process import Command
from coalmine.process.lifecycle import Stop
from coalmine_router.supervisor import Grace, Supervisor
from tests.doubles.waiting import eventually

READY = """
import json, sys, pathlib, time
print(json.dumps({"event": "ready", "http": "127.0.0.1:1"}), flush=True)
sys.stdin.read()
"""
LATE = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
"""


def program(name: str, text: str, *arguments: str) -> Command:
    return Command(name, arguments, program=(sys.executable, "-c", text))


async def test_proxies_wait_for_control_but_not_for_ever_and_all_is_ready_once_control_is(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    supervisor = Supervisor(
        program("control", LATE + READY, str(go)),
        [program("proxy-0", READY)],
        Grace.of(10),
        control_first_s=0.1,
    )
    stop, serving = Stop(), asyncio.Event()

    async def serve() -> None:
        serving.set()
        await asyncio.Event().wait()

    def up(process: str) -> bool:
        return any(
            sample.labels == {"process": process} and sample.value == 1
            for metric in supervisor.metrics().collect()
            if metric.name == "coalmine_router_process_up"
            for sample in metric.samples
        )

    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run(stop, serve))
            await eventually(lambda: up("proxy-0"), 20)
            assert not up("control")
            assert not serving.is_set()
            go.touch()
            async with asyncio.timeout(20):
                await serving.wait()
            assert up("control")
            stop.ask("test")
    late = [each for each in logs if each["event"] == "control_late"]
    assert [each["log_level"] for each in late] == ["error"]
