"""What `--json` prints of messages with every field set, and with none: it stays as it was.

The files of golden_json were written by the program before it had one mapper for all messages.
"""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from typer.testing import CliRunner

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.root import program
from tests.doubles.control import FakeControl, serving

GOLDEN: Final = Path(__file__).parent / "golden_json"
VERBS: Final = {
    "routes": ("ListRoutes", pb.ListRoutesResponse),
    "status digits": ("GetRoute", pb.RouteStatus),
    "history digits": ("GetHistory", pb.GetHistoryResponse),
    "trials digits": ("ListTrials", pb.ListTrialsResponse),
    "mismatches digits": ("ListMismatches", pb.ListMismatchesResponse),
    "mismatches digits --show m-17": ("GetMismatch", pb.Mismatch),
}
# Each number of a message once: a field that takes another's place is seen.
FLOATS: Final = (0.25, 1.5, math.inf, -math.inf, math.nan)


def filled(message: Message, numbers: Iterator[int]) -> None:
    """Set every field, two of each that is repeated, to values that no other field has."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            for name in ("zeta", "alpha"):
                entries[name] = next(numbers)
        elif field.message_type and field.is_repeated:
            for _ in range(2):
                filled(getattr(message, field.name).add(), numbers)
        elif field.message_type:
            filled(getattr(message, field.name), numbers)
        elif field.is_repeated:
            getattr(message, field.name).extend(value(field, next(numbers)) for _ in range(2))
        else:
            setattr(message, field.name, value(field, next(numbers)))


def add_empty(message: Message) -> None:
    """Add one message without any field to each list of messages."""
    for field in message.DESCRIPTOR.fields:
        if (
            field.is_repeated
            and field.message_type
            and not field.message_type.GetOptions().map_entry
        ):
            getattr(message, field.name).add()


def value(field: Any, number: int) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return FLOATS[number % len(FLOATS)]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return number.to_bytes(2, "big")
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f"{field.name} {number}"
    return number * 10**12 + 345_678 if field.name.endswith("_ns") else number


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fields", ["every", "no"])
def test_what_a_verb_prints_as_json_stays(verb: str, fields: str) -> None:
    method, kind = VERBS[verb]
    answer = kind()
    if fields == "every":
        filled(answer, itertools.count(1))
    else:
        add_empty(answer)
    control = FakeControl()
    control.answers[method] = answer
    if method != "GetRoute":
        control.answers["GetRoute"] = pb.RouteStatus()
    with serving(control) as address:
        line = [*verb.split(), "--json"]
        result = CliRunner().invoke(program(), line, env={"COALMINE_CONTROL": address})

    name = f"{verb.replace(' digits', '').replace(' --show m-17', '_show')}_{fields}.json"
    assert json.loads(result.stdout) == json.loads((GOLDEN / name).read_text())
