"""The check of a module's forward against the declared signature, before anything runs."""

from collections.abc import Sequence
from typing import Any, Final

from coalmine.errors import StartError
from coalmine.tensors import BYTES
from coalmine_server.signature import Signature, TensorSpec

_STRINGS: Final = "List[str]"
_OPTIONAL: Final = ("Optional[Tensor]", "Optional[List[str]]")


def check_schema(schema: Any, signature: Signature) -> None:
    """Raise StartError where `forward` takes another number of inputs, or strings in other places.

    `schema` is torch's: its arguments have a name, a type and perhaps a default.
    """
    arguments = schema.arguments[1:]  # the first is the module itself
    specs = signature.inputs
    least = sum(not each.has_default_value() for each in arguments)
    if not least <= len(specs) <= len(arguments):
        takes = f"{len(arguments)}" if least == len(arguments) else f"{least} to {len(arguments)}"
        raise StartError(f"{len(specs)} inputs are declared, the module's forward takes {takes}")
    for spec, argument in zip(specs, arguments, strict=False):
        _check_input(spec, argument.type.annotation_str)
    _check_outputs(signature, [each.type.annotation_str for each in schema.returns])


def _check_input(spec: TensorSpec, takes: str) -> None:
    if (spec.datatype == BYTES) != (_STRINGS in takes):
        raise StartError(
            f"input '{spec.name}' is declared {spec.datatype}, the module takes {takes} there"
        )
    if spec.optional and takes not in _OPTIONAL:
        raise StartError(
            f"input '{spec.name}' is declared optional, the module takes {takes} there"
        )


def _check_outputs(signature: Signature, gives: Sequence[str]) -> None:
    """Check declared BYTES alone: the contents of a dict or a list show in the warm-up."""
    declared = [each.name for each in signature.outputs if each.datatype == BYTES]
    if declared and not any("str" in each for each in gives):
        raise StartError(
            f"output '{declared[0]}' is declared BYTES, the module gives {', '.join(gives)}"
        )
