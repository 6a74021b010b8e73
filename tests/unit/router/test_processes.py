"""The router's processes, as the supervisor sees them: real ports, with processes played here."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from structlog.testing import capture_logs

from coalmine.process.child_process import Child
from coalmine.process.exposition import Exposition
from coalmine_router.processes import ProcessMetrics, ProcessWatch


class Played:
    """A child process that announced `http`."""

    def __init__(self, name: str, http: str, *, is_up: bool = True, restarts: int = 0) -> None:
        self.name, self.is_up, self.restarts, self.failures = name, is_up, restarts, 0
        self.announcement = {"http": http}
        self.pid = hash(name) % 10_000 + 1
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1
        self.is_up = False

    @property
    def child(self) -> Child:
        return cast("Child", self)


class Readiness:
    is_ready = True

    def __call__(self) -> bool:
        return self.is_ready


@contextlib.contextmanager
def answering(name: str, ready: Readiness | None = None) -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("canaries", "How many.", ["cage"], registry=registry).labels(name).inc(3)
    exposition = Exposition("127.0.0.1:0", registry, ready or Readiness())
    exposition.start()
    yield exposition.address
    exposition.stop()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Yield an address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def page(*alone: Played, proxies: list[Played]) -> str:
    registry = CollectorRegistry()
    shared = [each.child for each in proxies]
    registry.register(ProcessMetrics([each.child for each in alone], shared, {"proxy-0": 2}))
    return generate_latest(registry).decode()


def test_the_page_has_every_process_and_tells_proxies_apart() -> None:
    with answering("a") as control, answering("b") as one, answering("c") as two:
        seen = page(
            Played("control", control),
            proxies=[Played("proxy-0", one, restarts=3), Played("proxy-1", two)],
        )
    assert 'canaries_total{cage="a"} 3.0' in seen
    assert 'canaries_total{cage="b",process="proxy-0"} 3.0' in seen
    assert 'canaries_total{cage="c",process="proxy-1"} 3.0' in seen
    assert seen.count("# HELP canaries_total") == 1
    assert 'coalmine_router_process_restarts_total{process="proxy-0"} 3.0' in seen
    assert 'coalmine_router_processes_recycled_total{process="proxy-0"} 2.0' in seen
    assert 'coalmine_router_processes_recycled_total{process="proxy-1"} 0.0' in seen


def test_a_process_that_is_down_or_refuses_is_left_out_and_the_page_stays() -> None:
    with answering("b") as one:
        down = Played("control", "127.0.0.1:1", is_up=False)
        refusing = Played("proxy-1", "127.0.0.1:1")
        seen = page(down, proxies=[Played("proxy-0", one), refusing])
    assert 'canaries_total{cage="b",process="proxy-0"} 3.0' in seen
    assert 'coalmine_router_process_up{process="control"} 0.0' in seen
    assert "coalmine_router_processes_not_scraped_total 1.0" in seen


def test_a_process_that_hangs_costs_a_scrape_a_second_and_no_error() -> None:
    with answering("a") as control, silent() as hung:
        seen = page(Played("control", control), proxies=[Played("proxy-0", hung)])
    assert 'canaries_total{cage="a"} 3.0' in seen
    assert "coalmine_router_processes_not_scraped_total 1.0" in seen


def watch_of(*proxies: Played, hangs_s: float = 60.0) -> ProcessWatch:
    children = [each.child for each in proxies]
    return ProcessWatch(children, children, hangs_s=hangs_s, each_s=0.01)


async def becomes(watch: ProcessWatch, wanted: str) -> None:
    async with asyncio.timeout(10):
        while watch.why_not() != wanted:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(watch: ProcessWatch) -> Any:
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()


def test_before_any_proxy_is_up_none_serves() -> None:
    watch = watch_of(Played("proxy-0", "", is_up=False), Played("proxy-1", "", is_up=False))
    assert watch.why_not() == "no proxy serves: proxy-0 is down; proxy-1 is down"


async def test_one_proxy_that_serves_is_enough() -> None:
    ready = Readiness()
    with answering("b", ready) as one:
        proxy = Played("proxy-0", one)
        watch = watch_of(Played("proxy-1", "", is_up=False), proxy)
        assert watch.why_not() == ""
        async with running(watch):
            ready.is_ready = False
            await becomes(watch, "no proxy serves: proxy-1 is down; proxy-0 is not ready")
            ready.is_ready = True
            await becomes(watch, "")


@pytest.mark.parametrize("kind", ["hangs", "refuses"])
async def test_a_process_that_says_nothing_is_not_ready_then_killed_once(kind: str) -> None:
    with silent() as hung:
        proxy = Played("proxy-0", hung if kind == "hangs" else "127.0.0.1:1")
        watch = watch_of(proxy, hangs_s=1.5)
        with capture_logs() as logs:
            async with running(watch):
                await becomes(watch, "no proxy serves: proxy-0 doesn't answer")
                await becomes(watch, "no proxy serves: proxy-0 is down")
    assert proxy.kills == 1
    assert [each["event"] for each in logs] == ["process_hangs"]


async def test_a_process_that_answers_that_it_is_not_ready_is_left_alive() -> None:
    ready = Readiness()
    ready.is_ready = False
    with answering("b", ready) as one:
        proxy = Played("proxy-0", one)
        async with running(watch_of(proxy, hangs_s=0.2)):
            await asyncio.sleep(0.6)
    assert proxy.kills == 0
