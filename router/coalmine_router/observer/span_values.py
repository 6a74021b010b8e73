"""What the router's spans say, by the names of the contract; no value over 2 KiB. Pure."""

import math
from collections.abc import Mapping
from typing import Final

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.compare import Comparison, Difference
from coalmine_router.observer.rules import Element

Value = str | int | float
Values = dict[str, Value]

VALUE_BYTES_MAX: Final = 2_048


def rpc(method: str, code: str) -> Values:
    """Return what every span of a call says."""
    return {t.RPC_SYSTEM: "grpc", t.RPC_METHOD: method, t.RPC_STATUS: code}


def assignment(report: pb.Report, request_id: str) -> Values:
    """Return which variant a request was given, and why; of no route, only what the caller sent."""
    told: Values = {
        t.MODEL: report.model,
        t.REQUEST_ID: request_id,
        t.ROUTE: report.route,
        t.CHOSEN: report.chosen,
        t.TURNED_AWAY: report.turned_away,
    }
    if report.variant:
        told |= {
            t.VARIANT: report.variant,
            t.ASSIGNMENT: _assignment_name(report),
            t.REVISION: report.revision,
            t.FLAG_KEY: report.route,
            t.FLAG_VARIANT: report.variant,
            t.FLAG_VERSION: str(report.revision),
        }
    return {name: value for name, value in told.items() if value != ""}


def _assignment_name(report: pb.Report) -> str:
    try:
        name = pb.Assignment.Name(report.assignment)
    except ValueError:  # a newer proxy knows one more
        return "unspecified"
    return name.removeprefix("ASSIGNMENT_").lower()


def peer(role: str, variant: str, backend: str, address: str) -> Values:
    """Return who was called, and as what; `address` is host:port."""
    told: Values = {t.ROLE: role, t.VARIANT: variant, t.BACKEND: backend}
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        return {**told, t.SERVER_ADDRESS: host.strip("[]"), t.SERVER_PORT: int(port)}
    return {**told, t.SERVER_ADDRESS: address}


def comparison(reference: str, candidate: str, found: Comparison) -> Values:
    """Return a comparison's outcome; how far the values differ, only where values were compared."""
    told: Values = {
        t.COMPARE_REFERENCE: reference,
        t.COMPARE_CANDIDATE: candidate,
        t.COMPARE_OUTCOME: found.outcome,
    }
    if found.kind:
        told[t.COMPARE_KIND] = found.kind
    if found.outputs_differing:
        told[t.COMPARE_OUTPUTS_DIFFERING] = found.outputs_differing
    if found.outcome == "match" or found.kind in {"nan", "value"}:
        told[t.COMPARE_DIFF_BUCKET] = diff_bucket(found.max_abs_diff)
        # Infinity has no place in JSON: the file exporter's lines would be unreadable.
        if math.isfinite(found.max_abs_diff):
            told[t.COMPARE_MAX_ABS_DIFF] = found.max_abs_diff
    return told


def difference(found: Difference) -> Values:
    """Return how one output differs; its worst elements side by side, eight at most."""
    told: Values = {
        t.DIFFERENCE_NAME: found.output,
        t.DIFFERENCE_KIND: found.kind,
        t.DIFFERENCE_INDEX: _joined([_index(each) for each in found.worst]),
        t.DIFFERENCE_EXPECTED: _joined([each.expected for each in found.worst]),
        t.DIFFERENCE_ACTUAL: _joined([each.actual for each in found.worst]),
    }
    return {name: value for name, value in told.items() if value != ""}


def _index(element: Element) -> str:
    return str(list(element.index)) if element.index else ""


def _joined(texts: list[str]) -> str:
    return ", ".join(text for text in texts if text)


def diff_bucket(max_abs_diff: float) -> str:
    """Return the power of ten at or above, as text such as 1e-6; "0" and "inf" are themselves.

    As text, because Jaeger finds attributes by equality.
    """
    if max_abs_diff == 0 or math.isinf(max_abs_diff):
        return f"{max_abs_diff:g}"
    exponent = math.ceil(math.log10(max_abs_diff))
    return f"1e{exponent}"


def capped(values: Values | Mapping[str, Value]) -> Values:
    """Return the values, texts cut to 2 KiB."""
    return {
        name: capped_text(value) if isinstance(value, str) else value
        for name, value in values.items()
    }


def capped_text(text: str) -> str:
    """Return the text, cut to 2 KiB of UTF-8, between characters."""
    if len(text) * 4 <= VALUE_BYTES_MAX:
        return text
    return text.encode()[:VALUE_BYTES_MAX].decode(errors="ignore")
