"""`/metrics`, `/healthz` and `/readyz` over HTTP, in a thread of their own."""

import io
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from coalmine.process.addresses import bind_in_a_family, listen_error, split_address

_log = structlog.get_logger(__name__)

# Each is a thread. Whoever comes over that takes the place of who has been there longest: a prober
# gets in beside callers who open connections and say nothing.
CONNECTIONS_MAX: Final = 64
_IDLE_S: Final = 10.0

_Start = Callable[[str, list[tuple[str, str]]], Any]


class Exposition:
    """The HTTP side of a process. Raises StartError where its address can't be had.

    `why_not` gives the reason while the process isn't ready. A caller that sends nothing, or reads
    nothing, for `idle_s` is dropped.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        why_not: Callable[[], str] = lambda: "",
        *,
        idle_s: float = _IDLE_S,
    ) -> None:
        host, port = split_address(address)
        app = _wsgi_app(registry, ready, why_not)
        try:
            self._server = bind_in_a_family(
                host,
                lambda family: make_server(
                    host, port, app, server_class=_CLASSES[family], handler_class=_Handler
                ),
            )
        except OSError as error:
            raise listen_error(address, error) from None
        self._server.idle_s = idle_s
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
    """A server with a thread for each connection, `CONNECTIONS_MAX` at a time."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX
    idle_s = _IDLE_S

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._open: dict[Any, None] = {}  # the oldest first
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, once there is room for one."""
        with self._lock:
            if len(self._open) >= CONNECTIONS_MAX:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread finds that nobody is there
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's
        """Log an error of ours, and nothing about callers that are slow or gone."""
        error = sys.exception()
        if not isinstance(error, OSError):
            _log.error("http_connection_failed", exc_info=error)


class _DualServer(_Server):
    """Listens on IPv6. On `[::]` it takes both families."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


_CLASSES: Final[Mapping[int, type[_Server]]] = {
    socket.AF_INET: _Server,
    socket.AF_INET6: _DualServer,
}


class _Handler(WSGIRequestHandler):
    server: _Server

    def setup(self) -> None:
        """Set the time after which a silent caller is dropped."""
        super().setup()
        self.connection.settimeout(self.server.idle_s)

    def get_stderr(self) -> Any:
        """Return where wsgiref writes tracebacks, also of callers who are gone: nowhere."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Say nothing: scrapes would drown the log."""


def _wsgi_app(
    registry: CollectorRegistry, ready: Callable[[], bool], why_not: Callable[[], str]
) -> Any:
    metrics = make_wsgi_app(registry)

    def answer_request(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return _answer_scrape(metrics, environ, start)
        if path == "/healthz":
            return _answer_text(start, "200 OK", "ok")
        if path == "/readyz":
            is_ready = ready()
            status = "200 OK" if is_ready else "503 Service Unavailable"
            return _answer_text(start, status, "ready" if is_ready else why_not() or "not ready")
        return _answer_text(start, "404 Not Found", "there are /metrics, /healthz and /readyz")

    return answer_request


def _answer_scrape(metrics: Any, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
    try:
        answer: Iterable[bytes] = metrics(environ, start)
    except Exception:
        _log.exception("metrics_failed")
        raise
    return answer


def _answer_text(start: _Start, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
