"""A request for the digits, what stable answered it, and its report with a copy for canary."""

from typing import Any

import numpy as np

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.oip_backend import request_body, response_body
from tests.doubles.reports import report

PIXELS = np.arange(4, dtype=np.float32).reshape(1, 4)
LOGITS = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)
REQUEST = request_body("digits", request_id="r-1", pixels=PIXELS)
RESPONSE = response_body(logits=LOGITS)


def shadowed(*variants: str, **fields: Any) -> pb.Report:
    """Return a report whose request is to be copied to these variants; by default, to canary."""
    return report(REQUEST, RESPONSE, shadows=variants or ["canary"], **fields)
