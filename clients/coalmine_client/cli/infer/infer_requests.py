"""The requests that `coalmine infer` sends: from inputs, whole or row by row, or from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from coalmine.command_line.failure import WrongUsage
from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as pb
from coalmine.process.text_file import content_of
from coalmine.shown_value import one_line
from coalmine_client.cli.infer.input_options import needs_datatypes, read_inputs, split_rows
from coalmine_client.cli.request_json import read_request
from coalmine_client.client import AsyncClient, infer_request


@dataclass(frozen=True, slots=True)
class PlannedRequests:
    """What the command line says of the requests."""

    model: str
    version: str
    inputs: Sequence[str]
    file: Path | None
    outputs: Sequence[str]


async def make_requests(
    asked: PlannedRequests, client: AsyncClient, *, by_row: bool
) -> list[pb.ModelInferRequest]:
    """Return the requests. Raises WrongUsage, InvalidTensor, grpc.aio.AioRpcError."""
    if asked.file:
        return [request_from_file(asked.file, asked)]
    inputs = await _load_inputs(asked, client)
    return [
        infer_request(asked.model, each, version=asked.version, outputs=asked.outputs)
        for each in (split_rows(inputs) if by_row else [inputs])
    ]


def request_from_file(path: Path, asked: PlannedRequests) -> pb.ModelInferRequest:
    """Return the file's request to the model. The outputs of the options replace the file's own.

    Raises WrongUsage.
    """
    try:
        request = read_request(content_of(path))
    except StartError as error:
        raise WrongUsage(str(error)) from None
    except WrongUsage as error:
        raise WrongUsage(f"{path}: {one_line(str(error))}") from None
    request.model_name, request.model_version = asked.model, asked.version
    if asked.outputs:
        del request.outputs[:]
        for output in asked.outputs:
            request.outputs.add(name=output)
    return request


async def _load_inputs(asked: PlannedRequests, client: AsyncClient) -> dict[str, NDArray[Any]]:
    """Return the inputs as arrays. The server is asked for datatypes only if an input is JSON."""
    declared = {}
    if needs_datatypes(asked.inputs):
        metadata = await client.model_metadata(asked.model, asked.version)
        declared = {each.name: each.datatype for each in metadata.inputs}

    def datatype_of(name: str) -> str:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise WrongUsage(f"model '{asked.model}' has no input '{name}', it has {known}")
        return declared[name]

    return read_inputs(asked.inputs, datatype_of)
