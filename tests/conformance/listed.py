"""calls.yaml, as the runners are handed it: a line of JSON for each call, every value spelt out.

Values are strings, so that no language's JSON rounds them; elements of BYTES are in hex.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

LIST: Final[Any] = yaml.safe_load((Path(__file__).parent / "calls.yaml").read_text())
RAW_ONLY: Final = ("FP16", "BF16")
_ROW: Final = [1]


@dataclass(frozen=True)
class Listed:
    """A call of the list, and what it must get."""

    name: str
    call: Mapping[str, Any]
    expect: Mapping[str, Any]


def calls(target: str) -> list[Listed]:
    """Return all calls that a server, or a router, is asked once."""
    return [*_datatypes(), *(_listed(each, target) for each in _asked(target))]


def split(language: str) -> list[Mapping[str, Any]]:
    model = f"split_{language}"
    return [_digits(model, id=str(at)) for at in range(LIST["split"]["requests"])]


def sticky() -> list[Mapping[str, Any]]:
    """Return each key's call, then all of them again."""
    keys = [f"user-{at}" for at in range(LIST["sticky"]["keys"])]
    return [_digits("sticky", metadata={"x-user-id": key}) for key in [*keys, *keys]]


def drain() -> Mapping[str, Any]:
    return {**_digits("digits"), "call": "load", **LIST["drain"]}


def _asked(target: str) -> Iterator[Mapping[str, Any]]:
    return (each for each in LIST["calls"] if each.get("only", target) == target)


def _datatypes() -> Iterator[Listed]:
    for datatype, values in LIST["datatypes"].items():
        model = f"same_{datatype.lower()}"
        for typed in (False, True):
            if not (typed and datatype in RAW_ONLY):
                infer = {"model": model, "inputs": {"x": {datatype: values}}, "typed": typed}
                name = f"{datatype} {'typed' if typed else 'raw'}"
                yield Listed(name, _infer(infer), {"status": "OK", "outputs": {"y": values}})


def _listed(each: Mapping[str, Any], target: str) -> Listed:
    expect = {"status": "OK", **each["expect"], **each.get(target, {})}
    return Listed(each["name"], _call(each), expect)


def _call(each: Mapping[str, Any]) -> Mapping[str, Any]:
    if "infer" in each:
        return _infer(each["infer"])
    if "stream" in each:
        return {"call": "stream", "requests": [_infer(request) for request in each["stream"]]}
    return {"call": each["call"], "model": each.get("model", "")}


def _digits(model: str, **more: Any) -> Mapping[str, Any]:
    return _infer({"model": model, "inputs": {"pixels": {"FP32": [1] * 64}}, **more})


def _infer(infer: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = [
        _input(name, tensor, infer.get("shape"), typed=infer.get("typed", False))
        for name, tensor in infer["inputs"].items()
    ]
    return {"call": "infer", **infer, "inputs": inputs}


def _input(
    name: str, tensor: Mapping[str, Any], shape: list[int] | None, *, typed: bool
) -> Mapping[str, Any]:
    [(datatype, given)] = tensor.items()
    values = given if isinstance(given, list) else [given["fill"]] * given["count"]
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape or [*_ROW, len(values)],
        "values": [spelt(value, datatype) for value in values],
        "typed": typed,
    }


def spelt(value: Any, datatype: str) -> str:
    if datatype == "BYTES":
        return str(value).encode().hex()
    return str(value).lower()
