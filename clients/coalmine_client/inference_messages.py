"""What is sent to a model, and what it answers. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.telemetry import REVISION_KEY, VARIANT_KEY
from coalmine.tensors import Tensor, datatype_of, decode_outputs, encode_inputs

Array = NDArray[Any]
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, and who answered it.

    `variant` and `revision` come from a router; from a server, "" and 0. `outputs` are read-only
    views of the message where the answer came raw; of BYTES, object arrays of `bytes`.
    """

    model_name: str
    model_version: str
    id: str
    outputs: Mapping[str, Array]
    variant: str
    revision: int
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def infer_request(
    model: str,
    inputs: Mapping[str, Array],
    *,
    version: str = "",
    outputs: Iterable[str] = (),
    id: str = "",  # noqa: A002 - the protocol's name
) -> pb.ModelInferRequest:
    """Return the request, its inputs raw and in the order of `inputs`. Raises InvalidTensor."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    encode_inputs(request, [_tensor_of(name, np.asarray(value)) for name, value in inputs.items()])
    for output in outputs:
        request.outputs.add(name=output)
    return request


def _tensor_of(name: str, array: Array) -> Tensor:
    return Tensor(name, datatype_of(array.dtype), array)


def read_answer(
    response: pb.ModelInferResponse, trailing: Iterable[tuple[str, str | bytes]]
) -> Answer:
    """Return the response with its outputs as arrays. Raises InvalidTensor."""
    metadata = tuple((key, value) for key, value in trailing)
    said = {key: value for key, value in metadata if isinstance(value, str)}
    revision = said.get(REVISION_KEY, "")
    return Answer(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        outputs={each.name: each.array for each in decode_outputs(response)},
        variant=said.get(VARIANT_KEY, ""),
        revision=int(revision) if revision.isdecimal() else 0,
        trailing_metadata=metadata,
    )


# ---------------------------------------------------------------- a batch in parts


def split_inputs(inputs: Mapping[str, Array], rows_max: int) -> list[dict[str, Array]]:
    """Return the inputs in parts of at most `rows_max` rows, as views, in order.

    Raises InvalidTensor where the inputs have different numbers of rows.
    """
    sizes = {name: array.shape[0] if array.ndim else None for name, array in inputs.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise InvalidTensor(f"inputs of different numbers of rows can't be split: {sizes}")
    rows = next(iter(sizes.values())) or 0
    starts = range(0, rows, rows_max) or range(1)
    return [{name: each[at : at + rows_max] for name, each in inputs.items()} for at in starts]


def join_answers(answers: Sequence[Answer], rows: Sequence[int]) -> Answer:
    """Return one answer with the rows of all, in order; `rows` is how many each was asked for.

    `variant` and `model_version` list, with commas, all that answered; `revision` is the newest;
    the metadata is the last part's. Raises InvalidTensor for an output that isn't row by row.
    """
    if len(answers) == 1:
        return answers[0]
    for answer, count in zip(answers, rows, strict=True):
        for name, array in answer.outputs.items():
            if not array.ndim or array.shape[0] != count:
                raise InvalidTensor(f"output '{name}' doesn't have a row for each input row")
    outputs = {
        name: np.concatenate([answer.outputs[name] for answer in answers])
        for name in answers[0].outputs
    }
    return replace(
        answers[-1],
        outputs=outputs,
        variant=_joined_names(each.variant for each in answers),
        model_version=_joined_names(each.model_version for each in answers),
        revision=max(each.revision for each in answers),
    )


def _joined_names(names: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(names))
