"""What the router's spans say of calls, by the names of the contract; no value over 2 KiB. Pure."""

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

# Jaeger's larger stores search no value beyond this, and no tag so named.
NAME_CHARS_MAX: Final = 128
CANDIDATES_MAX: Final = 32

# Of several comparisons of a candidate, the first of these is told.
_WORST_FIRST: Final[tuple[Outcome, ...]] = ("mismatch", "error", "match", "ignored", "skipped")


def rpc(method: str, code: str) -> Values:
    """Return what every span of a call says."""
    told: Values = {t.RPC_SYSTEM: "grpc", t.RPC_METHOD: method, t.RPC_STATUS: code}
    return told if code == OK else {**told, t.FAILED: True}


def assignment(report: pb.Report, request_id: str) -> Values:
    """Return which variant a request was given, and why; of no route, only what the caller sent."""
    refused = report.origin_router and not report.attempts
    told: dict[str, Value | None] = {
        t.MODEL: report.model,
        t.REQUEST_ID: request_id,
        t.ROUTE: report.route,
        t.CHOSEN: report.chosen,
        t.ORIGIN: t.ORIGIN_ROUTER if report.origin_router else "",
        t.REFUSED: refused or None,
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
    return said(told)


def _assignment_name(report: pb.Report) -> str:
    try:
        name = pb.Assignment.Name(report.assignment)
    except ValueError:  # a newer proxy knows one more
        return "unspecified"
    return name.removeprefix("ASSIGNMENT_").lower()


def candidates(found: Iterable[PairResult]) -> Values:
    """Return the worst outcome of each candidate; the reference beside itself is none."""
    worst: dict[str, Outcome] = {}
    for each in found:
        if each.role == "noise":
            continue
        outcomes = {each.comparison.outcome, worst.get(each.candidate, "skipped")}
        worst[each.candidate] = min(outcomes, key=_WORST_FIRST.index)
    told = list(worst.items())[:CANDIDATES_MAX]
    return {named(t.CANDIDATE_PREFIX, name): outcome for name, outcome in told}


def peer(role: str, variant: str, backend: str, address: str) -> Values:
    """Return who was called, and as what; `address` is host:port."""
    told: Values = {t.ROLE: role, t.VARIANT: variant, t.BACKEND: backend}
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        return {**told, t.SERVER_ADDRESS: host.strip("[]"), t.SERVER_PORT: int(port)}
    return {**told, t.SERVER_ADDRESS: address}


# ---------------------------------------------------------------- form


def said(values: Mapping[str, Value | None]) -> Values:
    """Return the values that say something: not an empty text, not None."""
    return {name: value for name, value in values.items() if value not in ("", None)}


def named(prefix: str, name: str) -> str:
    """Return an attribute's name that ends in a name of somebody else's choice.

    As Jaeger's search field can hold it, unquoted: 128 characters of letters, digits, ._:/- and _
    for any other.
    """
    plain = (char if char.isalnum() or char in "._:/-" else "_" for char in name[:NAME_CHARS_MAX])
    return prefix + "".join(plain)


def capped(values: Mapping[str, Value]) -> Values:
    """Return the values with texts cut to 2 KiB; numbers that JSON has no word for become text."""
    return {name: _capped(value) for name, value in values.items()}


def _capped(value: Value) -> Value:
    if isinstance(value, str):
        return span_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value:g}"
    return value
