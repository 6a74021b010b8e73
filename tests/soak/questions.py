"""What is asked of the digits models of tests/models.py, and what each variant has to answer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coalmine.inference import inference_pb2 as pb
from tests.doubles.oip_backend import request_body

MODEL = "digits"
# Version 1 multiplies the sum of the pixels by 0 to 9; version 2 by so much more.
VERSIONS = {"stable": "1", "canary": "2", "shadow": "1"}
_MORE = {"stable": 0.0, "canary": 0.001}

_FACTORS = np.arange(10, dtype=np.float32)


@dataclass(frozen=True)
class Question:
    """A serialised request; the pixels are whole numbers, so that their sum is exact."""

    body: bytes
    total: float

    def is_answered_by(self, answer: bytes, variant: str) -> bool:
        """Return whether the numbers are those of the variant that the answer names."""
        if variant not in _MORE:
            return False
        [logits] = pb.ModelInferResponse.FromString(answer).raw_output_contents
        right = np.float32(self.total) * (_FACTORS + np.float32(_MORE[variant]))
        # The variants lie further apart than this wherever a sum isn't 0.
        return np.allclose(np.frombuffer(logits, np.float32), right, rtol=0, atol=1e-3)


def questions(count: int = 16) -> list[Question]:
    """Return questions that differ."""
    rng = np.random.default_rng(7)
    return [_question(rng.integers(0, 17, (1, 64)).astype(np.float32)) for _ in range(count)]


def _question(pixels: NDArray[np.float32]) -> Question:
    return Question(request_body(MODEL, pixels=pixels), float(pixels.sum()))
