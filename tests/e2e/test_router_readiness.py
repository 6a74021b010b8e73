"""A running router's HTTP side, probed all the time while its processes come and go."""

import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.doubles.processes import Started
from tests.doubles.router_setup import configuration, router
from tests.doubles.waiting import until

PROBED_EACH_S = 0.25


def probe(running: Started) -> str:
    """Return what /readyz says, or how asking failed."""
    try:
        with urllib.request.urlopen(f"http://{running.address('http')}/readyz", timeout=2) as told:
            return f"{told.status}"
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return type(error).__name__


@contextmanager
def probing(running: Started) -> Iterator[Counter[str]]:
    told, over = Counter[str](), threading.Event()

    def probe_ever() -> None:
        while not over.wait(PROBED_EACH_S):
            told[probe(running)] += 1

    thread = threading.Thread(target=probe_ever)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def logged(running: Started, event: str) -> int:
    return running.log.read_text().count(f'"{event}"')


def reloaded(running: Started) -> None:
    """Send SIGHUP, and return once the proxies are replaced."""
    before = logged(running, "workers_rolled")
    os.kill(running.pid, signal.SIGHUP)
    until(lambda: logged(running, "workers_rolled") > before, 60)


def control_up(running: Started) -> bool:
    return 'coalmine_router_process_up{process="control"} 1.0' in running.page()


@pytest.fixture(scope="module")
def file(server: Started, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configuration(tmp_path_factory.mktemp("readiness"), server.address("grpc"))


@pytest.fixture(scope="module")
def running(file: Path) -> Iterator[Started]:
    with router(file) as running:
        yield running


def test_no_probe_is_refused_over_reloads_and_a_death_of_control(
    running: Started, file: Path
) -> None:
    content = yaml.safe_load(file.read_text())
    with probing(running) as told:
        for n in range(3):
            name = f"letters-{n}"
            other = {**content["routes"][0], "name": name, "match": {"model": name}}
            content["routes"].append(other)
            file.write_text(yaml.safe_dump(content))
            reloaded(running)
        os.kill(running.child("control"), signal.SIGKILL)
        until(lambda: logged(running, "process_died") == 1, 20)
        assert "coalmine_router_proxy_serving" in running.page(), "the page stays"
        until(lambda: control_up(running), 20)
    assert set(told) == {"200"}, told
    assert told["200"] > 10


def test_the_page_has_the_figures_of_control_and_of_each_proxy(running: Started) -> None:
    seen = running.page()
    assert 'coalmine_router_proxy_serving{process="proxy-0"} 1.0' in seen
    assert "\ncoalmine_router_table_revision " in seen


def test_a_control_process_that_hangs_is_killed_and_comes_back(running: Started) -> None:
    hanging = running.child("control")
    deaths = logged(running, "process_died")
    os.kill(hanging, signal.SIGSTOP)
    with probing(running) as told:
        until(lambda: logged(running, "process_died") > deaths, 30)
        until(lambda: control_up(running), 20)
    assert logged(running, "process_hangs") == 1
    assert running.child("control") != hanging
    assert set(told) == {"200"}, told


def test_without_a_living_proxy_readyz_says_why(running: Started) -> None:
    proxy = running.child("proxy")
    os.kill(proxy, signal.SIGSTOP)
    until(lambda: probe(running).startswith("503"), 10)
    assert probe(running) == "503 no proxy serves: proxy-0 doesn't answer\n"
    os.kill(proxy, signal.SIGCONT)
    until(lambda: probe(running) == "200", 10)
    os.kill(proxy, signal.SIGKILL)
    began_s = time.monotonic()
    until(lambda: probe(running).startswith("503"), 2)
    assert time.monotonic() - began_s < 1
    until(lambda: probe(running) == "200", 20)
