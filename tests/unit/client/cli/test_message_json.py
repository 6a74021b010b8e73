"""The JSON of a message: by its descriptor."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.message_json import message_json


def test_bytes_are_hidden_but_for_the_trace_id() -> None:
    found = message_json(pb.Report(trace_id=b"\x01\xab", span_id=b"\x02", request_body=b"secret"))

    assert found["trace_id"] == "01ab"
    assert not {"span_id", "request_body", "response_body"} & {*found}


def test_an_enum_is_a_word() -> None:
    found = message_json(pb.Report(assignment=pb.ASSIGNMENT_STICKY))

    assert found["assignment"] == "ASSIGNMENT_STICKY"


def test_a_new_field_joins_under_its_own_name() -> None:
    assert message_json(pb.ReportAck(number=7)) == {"number": 7}
