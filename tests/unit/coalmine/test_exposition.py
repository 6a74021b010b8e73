import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from coalmine.errors import StartError
from coalmine.exposition import Exposition


class Readiness:
    def __init__(self) -> None:
        self.ready = False

    def __call__(self) -> bool:
        return self.ready


@pytest.fixture
def ready() -> Readiness:
    return Readiness()


@pytest.fixture
def exposition(ready: Readiness) -> Iterator[Exposition]:
    registry = CollectorRegistry()
    Counter("canaries", "How many.", registry=registry).inc(3)
    exposition = Exposition("127.0.0.1:0", registry, ready)
    exposition.start()
    yield exposition
    exposition.stop()


def get(exposition: Exposition, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{exposition.address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("[::1]:0", ["[::1]"]),
        ("[::]:0", ["[::1]", "127.0.0.1"]),
        ("0.0.0.0:0", ["127.0.0.1"]),
        ("localhost:0", ["localhost"]),
    ],
)
def test_every_address_that_grpc_listens_on_is_taken(
    listen: str, asked: list[str], ready: Readiness
) -> None:
    exposition = Exposition(listen, CollectorRegistry(), ready)
    exposition.start()
    try:
        host, _, port = exposition.address.rpartition(":")
        assert host == listen.rpartition(":")[0]
        for each in asked:
            with urllib.request.urlopen(f"http://{each}:{port}/healthz", timeout=10) as answer:
                assert answer.status == 200
    finally:
        exposition.stop()


def test_metrics_are_those_of_the_registry(exposition: Exposition) -> None:
    status, text = get(exposition, "/metrics")

    assert status == 200
    assert "canaries_total 3.0" in text


def test_readyz_follows_what_the_process_says(exposition: Exposition, ready: Readiness) -> None:
    assert get(exposition, "/readyz") == (503, "not ready\n")
    ready.ready = True
    assert get(exposition, "/readyz") == (200, "ready\n")


def test_healthz_is_ok_also_while_not_ready(exposition: Exposition) -> None:
    assert get(exposition, "/healthz") == (200, "ok\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/../etc", "/favicon.ico"])
def test_any_other_path_is_not_found_and_says_what_there_is(
    exposition: Exposition, path: Any
) -> None:
    assert get(exposition, path) == (404, "there are /metrics, /healthz and /readyz\n")


def test_scrapes_say_nothing_on_standard_error(
    exposition: Exposition, capfd: pytest.CaptureFixture[str]
) -> None:
    get(exposition, "/metrics")

    assert capfd.readouterr().err == ""


def test_a_taken_port_cant_be_had_and_is_free_after_a_stop(exposition: Exposition) -> None:
    with pytest.raises(StartError, match=f"cannot listen on {exposition.address}: address already"):
        Exposition(exposition.address, CollectorRegistry(), lambda: True)

    exposition.stop()
    Exposition(exposition.address, CollectorRegistry(), lambda: True).stop()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(StartError, match="is not an address"):
        Exposition("nowhere", CollectorRegistry(), lambda: True)
