import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from coalmine.errors import StartError
from coalmine.process.exposition import CONNECTIONS_MAX, Exposition
from tests.doubles.waiting import until


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


# ---------------------------------------------------------------- callers who are slow, or gone


@pytest.fixture
def impatient() -> Iterator[Exposition]:
    """Yield one with more to say than sockets hold, that gives up who is silent for 0.2 s."""
    registry = CollectorRegistry()
    gauge = Gauge("many", "Of what there is much.", ["which"], registry=registry)
    for each in range(600):
        gauge.labels(f"{each:010000}")
    exposition = Exposition("127.0.0.1:0", registry, lambda: True, idle_s=0.2)
    exposition.start()
    yield exposition
    exposition.stop()


def connected(exposition: Exposition) -> socket.socket:
    host, _, port = exposition.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def reset(caller: socket.socket) -> None:
    """End a connection as the system does of a process that was killed."""
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()


def is_ended(caller: socket.socket) -> bool:
    """Return whether the other side has ended the connection, without an answer."""
    try:
        return caller.recv(1) == b""
    except ConnectionError:
        return True


def answering_threads() -> int:
    return sum("process_request_thread" in each.name for each in threading.enumerate())


@pytest.mark.parametrize("said", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: a\r\n"])
@pytest.mark.parametrize("ends", [is_ended, reset])
def test_callers_who_say_half_of_it_are_given_up_without_a_word(
    impatient: Exposition,
    capfd: pytest.CaptureFixture[str],
    said: bytes,
    ends: Callable[[socket.socket], object],
) -> None:
    with connected(impatient) as caller:
        caller.sendall(said)
        assert ends(caller) in {True, None}
    until(lambda: not answering_threads(), 10)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ends", [lambda _: None, reset])
def test_callers_who_read_no_answer_are_given_up_without_a_word(
    impatient: Exposition,
    capfd: pytest.CaptureFixture[str],
    ends: Callable[[socket.socket], None],
) -> None:
    with connected(impatient) as caller:
        caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert caller.recv(1) == b"H"
        ends(caller)
        until(lambda: not answering_threads(), 10)
    assert capfd.readouterr() == ("", "")


def test_a_probe_gets_in_beside_as_many_silent_callers_as_there_may_be(
    exposition: Exposition,
) -> None:
    callers = [connected(exposition) for _ in range(2 * CONNECTIONS_MAX)]
    try:
        assert get(exposition, "/healthz") == (200, "ok\n")
        until(lambda: answering_threads() <= CONNECTIONS_MAX, 10)
        assert all(is_ended(each) for each in callers[:CONNECTIONS_MAX])
    finally:
        for each in callers:
            each.close()


def test_a_figure_that_cant_be_read_is_an_error_in_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    broken = Gauge("broken", "Of nothing.", registry=registry)
    exposition = Exposition("127.0.0.1:0", registry, lambda: True)
    exposition.start()
    broken.set_function(lambda: 1 / 0)
    try:
        assert get(exposition, "/metrics")[0] == 500
    finally:
        exposition.stop()
    # The log is on one of the two, as it was set up last; the library would print to the second.
    # Where it goes through logging, and nobody set that up since, only pytest hears it.
    [log] = [each for each in capfd.readouterr() if each] or [caplog.text]
    assert "metrics_failed" in log
