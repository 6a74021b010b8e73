"""SIGTERM of a proxy under load, with another one alive."""

import asyncio
import os
import signal
from pathlib import Path

from tests.doubles.load import Load
from tests.doubles.processes import Started, alive
from tests.doubles.router_setup import configuration, router
from tests.doubles.waiting import until


async def test_a_stop_of_one_proxy_under_load_fails_no_call(
    server: Started, tmp_path: Path
) -> None:
    with router(configuration(tmp_path, server.address("grpc")), workers=2) as running:
        load = Load(running.address("data"))
        async with load.running(connections=8, callers=16):
            await load.answered(100)
            leaving = running.child("proxy")
            os.kill(leaving, signal.SIGTERM)
            await asyncio.to_thread(until, lambda: not alive(leaving), 20)
            await load.answered(100)
        assert load.failures == {}, load.texts
