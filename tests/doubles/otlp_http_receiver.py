"""An OTLP collector in this process that takes spans over real HTTP, or refuses them."""

import gzip
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service_pb

from tests.doubles.certificates import Pair
from tests.doubles.otlp_receiver import Received, spans_of


@dataclass(frozen=True)
class HttpAnswer:
    """What a collector says to one request."""

    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = ()  # type: ignore[assignment]  # none


@dataclass(frozen=True)
class HttpRequest:
    """What came; names of headers are in lower case, `size` is of the body as it travelled."""

    path: str
    headers: Mapping[str, str]
    size: int


class OtlpHttpReceiver(Received):
    """Listens on a port of its own from `with` on; bodies over `body_bytes_max` are refused by 413.

    `answers` are given to the first requests, whose spans it doesn't take where the code is no 200.
    """

    def __init__(
        self,
        *answers: HttpAnswer,
        body_bytes_max: int = 0,
        tls: Pair | None = None,
        callers_ca: str = "",
    ) -> None:
        super().__init__()
        self.requests: list[HttpRequest] = []
        self._answers = list(answers)
        self._body_bytes_max = body_bytes_max
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls.cert, tls.key)
            if callers_ca:
                context.load_verify_locations(callers_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def answer(self, request: HttpRequest, body: bytes) -> HttpAnswer:
        self.requests.append(request)
        if self._answers:
            answer = self._answers.pop(0)
        elif 0 < self._body_bytes_max < len(body):
            answer = HttpAnswer(413)
        else:
            answer = HttpAnswer()
        if answer.code == 200:
            self.take(list(spans_of(service_pb.ExportTraceServiceRequest.FromString(body))))
        return answer


def _handler(receiver: OtlpHttpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = HttpRequest(self.path, headers, len(body))
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            answer = receiver.answer(request, body)
            self.send_response(answer.code)
            for key, value in dict(answer.headers).items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
