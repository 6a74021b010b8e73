"""What is sent to every contestant, and what the canned backend answers."""

import numpy as np

from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, encode_inputs, encode_outputs

SMALL = (1, 64)


def request(shape: tuple[int, ...] = SMALL) -> bytes:
    """Return a serialised request with an FP32 tensor of that shape."""
    asked = pb.ModelInferRequest(model_name="bench")
    pixels = np.random.default_rng(1).random(shape, np.float32)
    encode_inputs(asked, [Tensor("x", "FP32", pixels)])
    return asked.SerializeToString()


def answer() -> bytes:
    """Return a serialised answer with ten numbers."""
    answered = pb.ModelInferResponse(model_name="bench", model_version="1")
    encode_outputs(answered, [Tensor("y", "FP32", np.zeros((1, 10), np.float32))], raw=True)
    return answered.SerializeToString()
