"""A TorchScript runtime for MLServer, which has none of its own. It runs in MLServer's process.

The names of the outputs are parameters of the model, in the order in which its forward gives them.
"""

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class TorchScript(MLModel):  # type: ignore[misc]  # MLServer is in another environment
    """One file, called with the inputs in the order of the request."""

    async def load(self) -> bool:
        file = self._settings.parameters.uri
        self._module = torch.jit.load(file).eval()  # type: ignore[no-untyped-call]
        self._outputs: list[str] = self._settings.parameters.extra["outputs"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = [torch.as_tensor(NumpyCodec.decode_input(each)) for each in payload.inputs]
        with torch.inference_mode():
            answer = self._module(*inputs)
        tensors = answer if isinstance(answer, tuple) else (answer,)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[
                self._encoded(name, tensor)
                for name, tensor in zip(self._outputs, tensors, strict=True)
            ],
        )

    def _encoded(self, name: str, tensor: torch.Tensor) -> ResponseOutput:
        return NumpyCodec.encode_output(name, tensor.numpy())
