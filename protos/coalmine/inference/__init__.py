"""Package `inference`: the Open Inference Protocol, generated, in a descriptor pool of its own."""

from typing import Final

SERVICE: Final = "inference.GRPCInferenceService"
MODEL_INFER: Final = f"{SERVICE}/ModelInfer"
MODEL_STREAM_INFER: Final = f"{SERVICE}/ModelStreamInfer"
