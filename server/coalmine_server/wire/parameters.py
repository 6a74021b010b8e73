"""The parameters of a request that the server obeys, and those that it refuses. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from coalmine.errors import InvalidRequest, NotOffered
from coalmine.inference import inference_pb2 as pb

# Triton's parameters that change what an answer means: ignoring them would be a wrong answer.
_REFUSED_OF_REQUEST: Final = ("sequence_id", "sequence_start", "sequence_end")
_REFUSED_OF_TENSOR: Final = ("shared_memory_region", "classification")


@dataclass(slots=True, eq=False)
class RequestParameters:
    """A request's settings beside its tensors; None where it has none."""

    timeout_ns: int | None = None
    priority: int = 0  # 1 is highest; 0, the default, comes after all others
    raw: bool | None = None


NO_PARAMETERS: Final = RequestParameters()


def read_parameters(label: str, parameters: Mapping[str, pb.InferParameter]) -> RequestParameters:
    """Return a request's parameters. Raises InvalidRequest, or NotOffered for a refused one.

    `timeout` is in microseconds on the wire; 0 is none, as in Triton.
    """
    for name in _REFUSED_OF_REQUEST:
        if name in parameters:
            raise _not_offered_error(label, name)
    timeout_us = _integer_parameter(label, parameters, "timeout", ("int64_param",))
    return RequestParameters(
        timeout_us * 1_000 if timeout_us else None,
        _integer_parameter(label, parameters, "priority", ("uint64_param", "int64_param")) or 0,
        _parameter_value(label, parameters, "binary_data_output", ("bool_param",)),
    )


def refuse_parameters(label: str, parameters: Mapping[str, pb.InferParameter]) -> None:
    """Raise NotOffered for a parameter of a tensor that would change the answer."""
    for name in _REFUSED_OF_TENSOR:
        if name in parameters:
            raise _not_offered_error(label, name)


def _not_offered_error(label: str, name: str) -> NotOffered:
    return NotOffered(f"{label}: parameter '{name}' is not offered")


def _integer_parameter(
    label: str, parameters: Mapping[str, pb.InferParameter], name: str, kinds: Sequence[str]
) -> int | None:
    value: int | None = _parameter_value(label, parameters, name, kinds)
    if value is not None and value < 0:
        raise InvalidRequest(f"{label}: parameter '{name}' expects 0 or more, got {value}")
    return value


def _parameter_value(
    label: str, parameters: Mapping[str, pb.InferParameter], name: str, kinds: Sequence[str]
) -> Any:
    if name not in parameters:  # to read one that is absent would add it
        return None
    given = parameters[name]
    kind = given.WhichOneof("parameter_choice")
    if kind is None or kind not in kinds:
        raise InvalidRequest(
            f"{label}: parameter '{name}' expects {kinds[0]}, got {kind or 'nothing'}"
        )
    return getattr(given, kind)
