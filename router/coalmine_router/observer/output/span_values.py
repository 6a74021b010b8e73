"""Attributes of the router's spans, by the contract's names; no value over 2 KiB. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from coalmine import telemetry as t
from coalmine.control.v1 import control_pb2 as pb
from coalmine.spans.span_text import span_text
from coalmine_router.codes import OK
from coalmine_router.observer.comparison.result import Outcome
from coalmine_router.observer.observed_request import PairResult

Value = str | int | float
Values = dict[str, Value]

# Jaeger's larger stores can't search for longer names or values.
NAME_CHARS_MAX: Final = 128
CANDIDATES_MAX: Final = 32

# Of several comparisons of a candidate, the first of these is shown.
_WORST_FIRST: Final[tuple[Outcome, ...]] = ("mismatch", "error", "match", "ignored", "skipped")


def rpc_values(method: str, code: str) -> Values:
    """Return the attributes of every call's span."""
    fields: Values = {t.RPC_SYSTEM: "grpc", t.RPC_METHOD: method, t.RPC_STATUS: code}
    return fields if code == OK else {**fields, t.FAILED: True}


def assignment_values(report: pb.Report, request_id: str) -> Values:
    """Return a request's variant and why it got it; without a route, only what the caller sent."""
    refused = report.origin_router and not report.attempts
    fields: dict[str, Value | None] = {
        t.MODEL: report.model,
        t.REQUEST_ID: request_id,
        t.ROUTE: report.route,
        t.CHOSEN: report.chosen,
        t.ORIGIN: t.ORIGIN_ROUTER if report.origin_router else "",
        t.REFUSED: refused or None,
        t.TURNED_AWAY: report.turned_away,
    }
    if report.variant:
        fields |= {
            t.VARIANT: report.variant,
            t.ASSIGNMENT: _assignment_name(report),
            t.REVISION: report.revision,
            t.FLAG_KEY: report.route,
            t.FLAG_VARIANT: report.variant,
            t.FLAG_VERSION: str(report.revision),
        }
    return non_empty(fields)


def _assignment_name(report: pb.Report) -> str:
    try:
        name = pb.Assignment.Name(report.assignment)
    except ValueError:  # a newer proxy knows one more
        return "unspecified"
    return name.removeprefix("ASSIGNMENT_").lower()


def candidate_values(found: Iterable[PairResult]) -> Values:
    """Return the worst outcome of each candidate; noise comparisons are left out."""
    worst: dict[str, Outcome] = {}
    for each in found:
        if each.role == "noise":
            continue
        outcomes = {each.comparison.outcome, worst.get(each.candidate, "skipped")}
        worst[each.candidate] = min(outcomes, key=_WORST_FIRST.index)
    shown = list(worst.items())[:CANDIDATES_MAX]
    return {attribute_name(t.CANDIDATE_PREFIX, name): outcome for name, outcome in shown}


def peer_values(role: str, variant: str, backend: str, address: str) -> Values:
    """Return which backend was called, in which role; `address` is host:port."""
    fields: Values = {t.ROLE: role, t.VARIANT: variant, t.BACKEND: backend}
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        return {**fields, t.SERVER_ADDRESS: host.strip("[]"), t.SERVER_PORT: int(port)}
    return {**fields, t.SERVER_ADDRESS: address}


# ---------------------------------------------------------------- form


def non_empty(values: Mapping[str, Value | None]) -> Values:
    """Return the values without empty texts and None."""
    return {name: value for name, value in values.items() if value not in ("", None)}


def attribute_name(prefix: str, name: str) -> str:
    """Return an attribute's name that ends in a name from outside, such as an output's.

    Jaeger's search field can hold it unquoted: 128 characters of letters, digits and ._:/-, with _
    for any other.
    """
    plain = (char if char.isalnum() or char in "._:/-" else "_" for char in name[:NAME_CHARS_MAX])
    return prefix + "".join(plain)


def capped_values(values: Mapping[str, Value]) -> Values:
    """Return the values with texts cut to 2 KiB, and numbers that JSON lacks as texts."""
    return {name: _capped_value(value) for name, value in values.items()}


def _capped_value(value: Value) -> Value:
    if isinstance(value, str):
        return span_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value:g}"
    return value
