"""Spans by HTTP: OpenTelemetry's exporter, with better words for a refusal.

The exporter itself takes a redirect for success. It logs a status's phrase at most, and nothing if
the collector's wait is longer than it may wait. It prefers ~/.netrc and REQUESTS_CA_BUNDLE to the
headers and certificates of its own variables.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from coalmine.spans.span_settings import http_endpoint_of

_log = logging.getLogger(__name__)  # heard by ExportOutage, as the exporter's own

# What the exporter tries again by itself.
_AGAIN: Final = frozenset({429, 502, 503, 504})
_TEXT_CHARS_MAX: Final = 200


class ExportRefused(Exception):
    """A collector's answer that is neither a success nor worth another attempt."""


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.hooks["response"].append(_check_response)
        self.auth = _unchanged_request

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        own = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, own, cert)


def http_exporter(environ: Mapping[str, str]) -> OTLPSpanExporter:
    """Return an exporter to that endpoint. It reads its other settings by itself."""
    return OTLPSpanExporter(http_endpoint_of(environ), session=_Session())


def _unchanged_request(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _check_response(response: requests.Response, **_: Any) -> None:
    """Log an answer that is no success. Raises ExportRefused if a retry is of no use."""
    code = response.status_code
    if code < 300:
        return
    told = f"HTTP {code} {response.reason}: {_response_text(response)}".removesuffix(": ")
    if code in _AGAIN:
        _log.warning(told)
        return
    response.close()  # nobody else will
    raise ExportRefused(told)


def _response_text(response: requests.Response) -> str:
    """Return what an answer says: OTLP has a google.rpc.Status, others what they like."""
    if target := response.headers.get("location"):
        return f"moved to {target[:_TEXT_CHARS_MAX]}"
    if "protobuf" in response.headers.get("content-type", ""):
        try:
            message: str = Status.FromString(response.content).message
        except DecodeError:
            return ""
        return message[:_TEXT_CHARS_MAX]
    return " ".join(response.text.split())[:_TEXT_CHARS_MAX]
