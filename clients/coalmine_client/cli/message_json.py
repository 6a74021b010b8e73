"""The JSON that `--json` prints of a message: every field by its name, in the protocol's order.

This JSON is a contract: fields may join, none changes or goes. Shares are integers in hundredths of
a percent (`_bp`), as on the wire. Names lose `_ns`: a time is ISO 8601, a duration is in `_ms`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from coalmine_client.cli.json_values import Json, iso_time, number_json, ratio

_DURATIONS: Final = {"saved_ns", "timeout_ns"}
# All other bytes are hidden.
_SHOWN_BYTES: Final = {"trace_id"}
_HIDDEN: Final = {"Route.strict_version", "VariantReach.route"}
_OTHER_NAMES: Final = {
    "AddressCounts.seen_ns": "at",
    "ComparisonCounts.mismatch_rate": "rate",  # of the rows of a request, in the mean over requests
    "Segment.mismatch_rate": "rate",
}
# Of these messages an unset one is null; of all others, one with every field at its default.
_NULL_IF_UNSET: Final = {"Rate"}
_COMPUTED: Final[Mapping[str, Callable[[Any], Json]]] = {
    "ComparisonCounts": lambda of: {"mismatch_rate": ratio(of.mismatch, of.match + of.mismatch)},
    "ShadowCounts": lambda of: {"role": of.role or "shadow"},
}


def message_json(of: Message) -> Json:
    """Return the message's fields, and what is computed from them."""
    # Typed, as the stubs have two kinds of descriptors.
    fields = cast("Sequence[FieldDescriptor]", of.DESCRIPTOR.fields)
    found = {_json_name(each): _field_json(of, each) for each in fields if _is_shown(each)}
    computed = _COMPUTED.get(of.DESCRIPTOR.name)
    return {**found, **(computed(of) if computed else {})}


def _is_shown(field: FieldDescriptor) -> bool:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return field.name in _SHOWN_BYTES
    return _field_path(field) not in _HIDDEN


def _field_path(field: FieldDescriptor) -> str:
    return field.full_name.removeprefix("coalmine.control.v1.")


def _json_name(field: FieldDescriptor) -> str:
    time = field.name.removesuffix("_ns")
    return _OTHER_NAMES.get(_field_path(field), f"{time}_ms" if field.name in _DURATIONS else time)


def _field_json(of: Message, field: FieldDescriptor) -> Any:
    kind = field.message_type
    is_nullable = field.has_presence and (kind is None or kind.name in _NULL_IF_UNSET)
    if is_nullable and not of.HasField(field.name):
        return None
    value = getattr(of, field.name)
    if field.name in _DURATIONS:
        return value / 1e6
    if field.name.endswith("_ns"):
        return iso_time(value)
    if field.enum_type:
        return field.enum_type.values_by_number[value].name
    return _value_json(value)


def _value_json(value: Any) -> Any:
    match value:
        case Message():
            return message_json(value)
        case float():
            return number_json(value)
        case bytes():
            return value.hex()
        case str() | int():
            return value
        case Mapping():
            return dict(sorted(value.items()))
        case _:
            return [_value_json(each) for each in value]
