"""The JSON of kept mismatches, by the rules of as_json. Pure."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.as_json import Json, moment, number


def mismatches(found: pb.ListMismatchesResponse) -> Json:
    """Return {mismatches: [mismatch]}."""
    return {"mismatches": [mismatch(each) for each in found.mismatches]}


def mismatch(of: pb.Mismatch) -> Json:
    """Return a mismatch without its bodies; in a list, expected and actual are ""."""
    return {
        "id": of.id,
        "at": moment(of.at_ns),
        "route": of.route,
        "reference": of.reference,
        "candidate": of.candidate,
        "trace_id": of.trace_id.hex(),
        "bodies_dropped": of.bodies_dropped,
        "differences": [_difference(each) for each in of.differences],
        "role": of.role,
        "kind": of.kind,
        "rows": of.rows,
        "rows_mismatch": of.rows_mismatch,
        "segment": of.segment,
        "request_id": of.request_id,
        "note": of.note,
        "reference_version": of.reference_version,
        "candidate_version": of.candidate_version,
        "reference_address": of.reference_address,
        "candidate_address": of.candidate_address,
        "trial": of.trial,
        "capture": of.capture,
        "inputs_dropped": list(of.inputs_dropped),
        "shapes": [_shape(each) for each in of.shapes],
    }


def _difference(of: pb.Difference) -> Json:
    return {
        "output": of.output,
        "kind": of.kind,
        "index": list(of.index),
        "expected": of.expected,
        "actual": of.actual,
        "max_abs_diff": number(of.max_abs_diff),
        "differing": of.differing,
        "elements": of.elements,
        "rows": of.rows,
        "rows_mismatch": of.rows_mismatch,
        "rule": of.rule,
        "score": number(of.score) if of.HasField("score") else None,
        "badness": number(of.badness) if of.HasField("badness") else None,
    }


def _shape(of: pb.TensorShape) -> Json:
    return {
        "side": of.side,
        "name": of.name,
        "datatype": of.datatype,
        "shape": list(of.shape),
    }
