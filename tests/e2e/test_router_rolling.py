"""SIGHUP of a running router: its file is read again, and its proxies are replaced, under load."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.load import Load
from tests.doubles.oip_backend import request_body
from tests.doubles.processes import Started, alive
from tests.doubles.router_setup import PIXELS, caller_of, configuration, control_of, router
from tests.doubles.waiting import until


def proxies(running: Started) -> list[int]:
    return [pid for pid, words in running.children().items() if "proxy" in words]


def logged(running: Started, event: str) -> int:
    return running.log.read_text().count(f'"{event}"')


def told(running: Started, event: str) -> None:
    """Send SIGHUP, and return once the router has said what came of it."""
    before = logged(running, event)
    os.kill(running.pid, signal.SIGHUP)
    until(lambda: logged(running, event) > before, 30)


@asynccontextmanager
async def under_load(running: Started) -> AsyncIterator[None]:
    """Call all the time, before and after as well; no call fails."""
    load = Load(running.address("data"))
    async with load.running(connections=4, callers=4):
        await load.answered(100)
        yield
        await load.answered(100)
    assert load.failures == {}, load.texts


async def test_a_roll_replaces_every_proxy_and_fails_no_call(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file, workers=2) as running:
        control, before = running.child("control"), proxies(running)
        async with under_load(running):
            await asyncio.to_thread(told, running, "workers_rolled")
            assert len(proxies(running)) == 2
            assert not any(map(alive, before))
        assert logged(running, "worker_replaced") == 2
        assert logged(running, "process_died") == 0
        assert running.child("control") == control, "the file is as it was"


async def test_a_changed_file_is_served_by_a_single_proxy_without_a_failed_call(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    content = yaml.safe_load(file.read_text())
    variants = {"stable": {"backend": "blue", "model": "digits", "version": "2"}}
    letters = {"name": "letters", "match": {"model": "letters"}, "variants": variants}
    with router(file) as running:
        control = running.child("control")
        async with under_load(running):
            file.write_text(yaml.safe_dump({**content, "routes": [*content["routes"], letters]}))
            await asyncio.to_thread(told, running, "workers_rolled")
        assert running.child("control") != control
        with caller_of(running) as caller:
            assert caller.infer(request_body("letters", pixels=PIXELS))[1] == "stable"


def test_a_wrong_file_changes_nothing_not_even_after_a_death(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running:
        before = set(running.children())
        file.write_text("routes: [")
        told(running, "config_refused")
        assert set(running.children()) == before
        assert logged(running, "config_refused") == 1
        # It comes back by what was last found good.
        victim = running.child("control")
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(running.children()) - before) == 1, 20)
        with control_of(running) as control:
            [route] = control.ListRoutes(pb.ListRoutesRequest(), timeout=10).routes
        assert route.name == "digits"
