"""A request as JSON, in the form of the protocol's REST side, and back to the bit. Pure.

{id, parameters, inputs: [{name, datatype, shape, parameters, data}],
outputs: [{name, parameters}]}; what is empty is left out. Elements are those of element_json.
Parameters whose kind their value doesn't tell are {"uint64": 5} and {"double": "NaN"}.

Source: the Open Inference Protocol, version 2, "Inference Request JSON Object".
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from coalmine.command_line.failure import WrongUsage
from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, decode_inputs, encode_inputs
from coalmine_client.cli.element_json import as_float, data_json, read_data
from coalmine_client.cli.json_values import Json, number_json

_INT64_MAX: Final = 2**63 - 1

_FIELDS: Final[Mapping[type, str]] = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}

Parameters = Mapping[str, pb.InferParameter]


def request_json(request: pb.ModelInferRequest) -> Json:
    """Return the request, without its model's name and version. Raises InvalidTensor."""
    inputs = [
        {
            **_output_json(described),
            "datatype": tensor.datatype,
            "shape": list(tensor.array.shape),
            "data": data_json(tensor),
        }
        for described, tensor in zip(request.inputs, decode_inputs(request), strict=True)
    ]
    told = {
        "id": request.id,
        "parameters": _parameters_json(request.parameters),
        "inputs": inputs,
        "outputs": [_output_json(each) for each in request.outputs],
    }
    return {name: value for name, value in told.items() if value}


def _output_json(
    of: pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor,
) -> Json:
    parameters = _parameters_json(of.parameters)
    return {"name": of.name, **({"parameters": parameters} if parameters else {})}


def read_request(text: str) -> pb.ModelInferRequest:
    """Return the request in `text`, inputs raw, its model not set. Raises WrongUsage."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"not JSON: {error}") from None
    _check_keys("the request", told, {"id", "parameters", "inputs", "outputs"}, {"inputs"})
    request = pb.ModelInferRequest(id=_check_text("id", told.get("id", "")))
    _set_parameters(request.parameters, told)
    for each in _check_list("inputs", told["inputs"]):
        _add_input(request, each)
    for each in _check_list("outputs", told.get("outputs", [])):
        _check_keys("an output", each, {"name", "parameters"}, {"name"})
        output = request.outputs.add(name=_check_text("an output's name", each["name"]))
        _set_parameters(output.parameters, each)
    return request


def _add_input(request: pb.ModelInferRequest, told: Any) -> None:
    keys = {"name", "datatype", "shape", "data"}
    _check_keys("an input", told, {*keys, "parameters"}, keys)
    name = _check_text("an input's name", told["name"])
    datatype = _check_text(f"input '{name}': datatype", told["datatype"])
    try:
        tensor = Tensor(name, datatype, read_data(datatype, told["shape"], told["data"]))
    except (InvalidTensor, ValueError) as error:
        raise WrongUsage(f"input '{name}': {error}") from None
    encode_inputs(request, [tensor])
    _set_parameters(request.inputs[-1].parameters, told)


# ---------------------------------------------------------------- parameters


def _parameters_json(parameters: Parameters) -> Json:
    return {name: _parameter_json(parameters[name]) for name in sorted(parameters)}


def _parameter_json(of: pb.InferParameter) -> Any:
    kind = of.WhichOneof("parameter_choice")
    if kind is None:
        return None
    value = getattr(of, kind)
    if kind == "double_param" and not math.isfinite(value):
        return {"double": number_json(value)}
    if kind == "uint64_param" and value <= _INT64_MAX:
        return {"uint64": value}
    return value


def _set_parameters(to: Any, told: Mapping[str, Any]) -> None:
    parameters = told.get("parameters", {})
    if not isinstance(parameters, dict):
        raise WrongUsage("parameters: expected an object")
    for name, value in parameters.items():
        try:
            to[name].CopyFrom(_parse_parameter(value))
        except (ValueError, TypeError, InvalidTensor):
            raise WrongUsage(f"parameter '{name}': can't be {value!r}") from None


def _parse_parameter(told: Any) -> pb.InferParameter:
    """Return the parameter. Raises ValueError, TypeError."""
    if told is None:
        return pb.InferParameter()
    if isinstance(told, dict):
        return _parse_typed_parameter(told)
    field = _FIELDS.get(type(told))
    if field is None:
        raise TypeError(type(told))
    if field == "int64_param" and told > _INT64_MAX:
        field = "uint64_param"
    return pb.InferParameter(**{field: told})


def _parse_typed_parameter(told: Mapping[str, Any]) -> pb.InferParameter:
    ((kind, value),) = told.items()
    if kind == "uint64":
        return pb.InferParameter(uint64_param=value)
    if kind == "double":
        return pb.InferParameter(double_param=as_float("double", value))
    raise ValueError(kind)


# ---------------------------------------------------------------- the form


def _check_keys(what: str, told: Any, known: set[str], needed: set[str]) -> None:
    if not isinstance(told, dict):
        raise WrongUsage(f"{what}: expected an object")
    if unknown := sorted(told.keys() - known):
        raise WrongUsage(f"{what}: unknown key '{unknown[0]}'")
    if missing := sorted(needed - told.keys()):
        raise WrongUsage(f"{what}: '{missing[0]}' is missing")


def _check_list(what: str, told: Any) -> list[Any]:
    if not isinstance(told, list):
        raise WrongUsage(f"{what}: expected a list")
    return told


def _check_text(what: str, told: Any) -> str:
    if not isinstance(told, str) or not _is_utf8(told):
        raise WrongUsage(f"{what}: expected a text, got {told!r}")
    return told


def _is_utf8(text: str) -> bool:
    """Return whether it can be sent: JSON can hold half a character."""
    return not any("\ud800" <= each <= "\udfff" for each in text)
