"""Writes the report of an ended request, as the bytes of a Report of control.proto.

The bytes are laid out by hand: a message object a request costs several times as much. Fields that
a variant's requests have in common are written once. The others have fixed places. A test reads
every field back.
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from math import inf
from struct import Struct
from typing import Final, TypeVar

from coalmine.control.v1 import control_pb2 as pb
from coalmine.varint import varint
from coalmine_router.channels import COPY_BYTES_MAX
from coalmine_router.codes import REFUSALS
from coalmine_router.metadata import Pair
from coalmine_router.proxy.exchange import Exchange
from coalmine_router.proxy.forward import TIMEOUT_S_MAX, Attempt, Outcome

Key = TypeVar("Key")

_MESSAGE_CHARS_MAX: Final = 2_048
# A name from a caller may be as long as a request.
_NAME_CHARS_MAX: Final = 128
# Addresses come and go with DNS, callers name the methods, and a table may stay for months.
_REMEMBERED_MAX: Final = 1_024

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def _tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


_REPORT: Final = {each.name: each.number for each in pb.Report.DESCRIPTOR.fields}
_ATTEMPT: Final = {each.name: each.number for each in pb.Attempt.DESCRIPTOR.fields}

_TRACE_ID: Final = _tag(_REPORT["trace_id"], _LENGTH) + b"\x10"
_SPAN_ID: Final = _tag(_REPORT["span_id"], _LENGTH) + b"\x08"
_PARENT: Final = _tag(_REPORT["parent_span_id"], _LENGTH) + b"\x08"
_SAMPLED: Final = _tag(_REPORT["sampled"], _VARINT)
_STARTED: Final = _tag(_REPORT["started_ns"], _FIXED64)
_DURATION: Final = _tag(_REPORT["duration_ns"], _FIXED64)
_STATUS: Final = _tag(_REPORT["status_code"], _VARINT)
_ASKED: Final = _tag(_REPORT["request_bytes"], _FIXED64)
_GIVEN: Final = _tag(_REPORT["response_bytes"], _FIXED64)
# ids, flag, times, code, sizes: each behind its tag.
_FACTS: Final = Struct(
    f"<{len(_TRACE_ID)}s16s{len(_SPAN_ID)}s8s{len(_SAMPLED)}sB"
    f"{len(_STARTED)}sQ{len(_DURATION)}sQ{len(_STATUS)}sB{len(_ASKED)}sQ{len(_GIVEN)}sQ"
).pack

_TIMEOUT: Final = _tag(_REPORT["timeout_ns"], _FIXED64)
_TIMEOUT_FACTS: Final = Struct(f"<{len(_TIMEOUT)}sQ").pack

_CALL: Final = _tag(_REPORT["attempts"], _LENGTH)
_CALL_SPAN: Final = _tag(_ATTEMPT["span_id"], _LENGTH) + b"\x08"
_CALL_STARTED: Final = _tag(_ATTEMPT["started_ns"], _FIXED64)
_CALL_DURATION: Final = _tag(_ATTEMPT["duration_ns"], _FIXED64)
_CALL_STATUS: Final = _tag(_ATTEMPT["status_code"], _VARINT)
_CALL_FACTS: Final = Struct(
    f"<{len(_CALL_SPAN)}s8s{len(_CALL_STARTED)}sQ{len(_CALL_DURATION)}sQ{len(_CALL_STATUS)}sB"
)


def report_of(exchange: Exchange, outcome: Outcome, ended_ns: int) -> bytes:
    """Return the report, without bodies, of a request that ended at `ended_ns` (perf_counter)."""
    trace = exchange.trace
    facts = _FACTS(
        *(_TRACE_ID, trace.trace_id, _SPAN_ID, trace.span_id, _SAMPLED, trace.sampled),
        *(_STARTED, exchange.wall_ns, _DURATION, ended_ns - exchange.began_ns),
        *(_STATUS, 0 if outcome.is_ok else outcome.status_number),
        *(_ASKED, exchange.request_bytes, _GIVEN, len(outcome.response)),
    )
    parts = [facts, _assignment_fields(exchange)]
    parts += [_attempt_field(exchange, each) for each in exchange.attempts]
    routed = exchange.routed
    if routed is not None and routed.route.fallback:
        parts.append(_timeout_field(exchange.timeout_s))
    if not outcome.is_ok:
        parts.append(_text_field("status_message", outcome.message[:_MESSAGE_CHARS_MAX]))
        if outcome.here:
            parts.append(_true_field("origin_router"))
    if trace.parent is not None:
        parts += (_PARENT, trace.parent.span_id)
    if exchange.caller.tracestate:
        parts.append(_text_field("tracestate", exchange.caller.tracestate))
    if exchange.copies.has_any:
        parts += _copy_fields(exchange, outcome)
    return b"".join(parts)


def bodies_of(exchange: Exchange, outcome: Outcome) -> bytes:
    """Return the report's fields for copies; empty where there are no copies."""
    if not exchange.copies.has_any or why_uncopied(exchange, outcome):
        return b""
    return b"".join(
        (
            _bytes_field("request_body", exchange.request),
            _bytes_field("response_body", outcome.response),
            *(_bytes_field("metadata", _pair_bytes(pair)) for pair in exchange.caller.metadata),
        )
    )


def _copy_fields(exchange: Exchange, outcome: Outcome) -> Iterator[bytes]:
    shadows, audit, noise = exchange.copies
    yield from (_text_field("shadows", each) for each in shadows)
    yield _text_field("audit", audit)
    if noise:
        yield _true_field("noise")
    yield _text_field("uncopied", why_uncopied(exchange, outcome))


def why_uncopied(exchange: Exchange, outcome: Outcome) -> str:
    """Return why drawn copies get no bodies; empty where they get them.

    A request that a variant refused is copied, to learn whether the others refuse it too.
    """
    if not outcome.is_ok and (outcome.here or outcome.code.name not in REFUSALS):
        return "primary_failed"
    too_large = len(exchange.request) + len(outcome.response) > COPY_BYTES_MAX
    return "too_large" if too_large else ""


# ---------------------------------------------------------------- what requests have in common


def _assignment_fields(exchange: Exchange) -> bytes:
    bound = exchange.bound
    if bound is None or exchange.chosen or exchange.model or exchange.turned_away:
        return _new_assignment_fields(exchange)
    key = exchange.method, exchange.reason
    known = bound.assigned_fields
    fields = known.get(key)
    if fields is None:
        fields = _remember_fields(known, key, _new_assignment_fields(exchange))
    return fields


def _new_assignment_fields(exchange: Exchange) -> bytes:
    routed, bound, chosen = exchange.routed, exchange.bound, exchange.chosen
    report = pb.Report(method=exchange.method, model=exchange.model[:_NAME_CHARS_MAX])
    report.turned_away = exchange.turned_away
    if routed is not None:
        report.route = routed.route.name
        report.model = report.model or routed.route.match.model
        report.revision = routed.revision
    if bound is not None:
        report.variant = bound.variant.name
        report.assignment = exchange.reason
        report.weight_bp = (chosen or bound).variant.weight_bp
    if chosen is not None:
        report.chosen = chosen.variant.name
        report.chosen_by = exchange.chosen_by
    if routed is not None and pb.ASSIGNMENT_SPLIT in {exchange.reason, exchange.chosen_by}:
        weights = routed.route.weights_bp.items()
        report.split_bp.update({name: weight for name, weight in weights if weight})
    return report.SerializeToString()


def _timeout_field(timeout_s: float) -> bytes:
    # A caller's deadline may be over, or further away than 64 bits of nanoseconds.
    if not 0.0 < timeout_s < inf:
        return b""
    return _TIMEOUT_FACTS(_TIMEOUT, int(min(timeout_s, TIMEOUT_S_MAX) * 1e9))


def _attempt_field(exchange: Exchange, attempt: Attempt) -> bytes:
    facts = _CALL_FACTS.pack(
        *(_CALL_SPAN, attempt.span_id),
        *(_CALL_STARTED, exchange.wall_ns + attempt.began_ns - exchange.began_ns),
        *(_CALL_DURATION, attempt.ended_ns - attempt.began_ns, _CALL_STATUS, attempt.code),
    )
    known = attempt.bound.attempt_fields
    fields = known.get(attempt.address.name)
    if fields is None:
        fields = _remember_fields(known, attempt.address.name, _attempt_head(attempt))
    if not attempt.message:
        return fields + facts
    said = pb.Attempt(status_message=attempt.message[:_MESSAGE_CHARS_MAX]).SerializeToString()
    return _bytes_field("attempts", _place_fields(attempt) + facts + said)


def _attempt_head(attempt: Attempt) -> bytes:
    """Return an attempt's tag, its length without a message, and its first fields."""
    fields = _place_fields(attempt)
    return _CALL + varint(len(fields) + _CALL_FACTS.size) + fields


def _place_fields(attempt: Attempt) -> bytes:
    return pb.Attempt(
        variant=attempt.bound.variant.name,
        backend=attempt.bound.endpoints.backend,
        address=attempt.address.name,
    ).SerializeToString()


def _remember_fields(known: dict[Key, bytes], key: Key, fields: bytes) -> bytes:
    if len(known) >= _REMEMBERED_MAX:
        known.clear()
    known[key] = fields
    return fields


# ---------------------------------------------------------------- fields


def _pair_bytes(pair: Pair) -> bytes:
    key, value = pair
    data = value.encode() if isinstance(value, str) else value
    return pb.Metadata(key=key, value=data).SerializeToString()


def _bytes_field(name: str, data: bytes) -> bytes:
    return _tag(_REPORT[name], _LENGTH) + varint(len(data)) + data


def _text_field(name: str, text: str) -> bytes:
    return _bytes_field(name, text.encode(errors="replace")) if text else b""


def _true_field(name: str) -> bytes:
    return _tag(_REPORT[name], _VARINT) + b"\x01"
