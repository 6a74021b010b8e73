"""`/metrics`, `/healthz` and `/readyz` over HTTP, in a thread of their own."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from coalmine.addresses import cannot_listen, split_address

_Start = Callable[[str, list[tuple[str, str]]], Any]


class Exposition:
    """The HTTP side of a process. Raises StartError where its address can't be had.

    `why_not` is the reason given while it isn't ready.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        host, port = split_address(address)
        app = _routes(registry, ready, why_not)
        try:
            self._server: WSGIServer = make_server(
                host, port, app, server_class=_class_for(host), handler_class=_Handler
            )
        except OSError as error:
            raise cannot_listen(address, error) from None
        self.address = f"{address.rpartition(':')[0]}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


@contextmanager
def exposing(
    address: str,
    registry: CollectorRegistry,
    ready: Callable[[], bool],
    why_not: Callable[[], str] = lambda: "",
) -> Iterator[str]:
    """Yield the address of an Exposition that answers until the end. Raises StartError."""
    exposition = Exposition(address, registry, ready, why_not)
    exposition.start()
    try:
        yield exposition.address
    finally:
        exposition.stop()


class _Server(ThreadingWSGIServer):
    allow_reuse_address = True
    daemon_threads = True


class _DualServer(_Server):
    """Listens on IPv6; on `[::]`, both families come."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _class_for(host: str) -> type[_Server]:
    return _DualServer if ":" in host else _Server


class _Handler(WSGIRequestHandler):
    timeout = 10  # a client that says nothing holds a thread no longer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Say nothing: scrapes would drown the log."""


def _routes(
    registry: CollectorRegistry, ready: Callable[[], bool], why_not: Callable[[], str]
) -> Any:
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start)
            return answer
        if path == "/healthz":
            return _text(start, "200 OK", "ok")
        if path == "/readyz":
            is_ready = ready()
            status = "200 OK" if is_ready else "503 Service Unavailable"
            return _text(start, status, "ready" if is_ready else why_not() or "not ready")
        return _text(start, "404 Not Found", "there are /metrics, /healthz and /readyz")

    return app


def _text(start: _Start, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
