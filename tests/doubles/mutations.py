"""Valid ModelInfer requests, and what a hostile or broken caller could make of their bytes."""

import random
from collections.abc import Iterator

import numpy as np

from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, Tensor, encode_inputs, to_typed


def valid_requests() -> list[bytes]:
    """Return one request of each kind, for the models `digits`, `pair` and `words`."""
    pixels = Tensor("pixels", "FP32", np.ones((2, 64), "f4"))
    many = Tensor("pixels", "FP32", np.ones((300, 64), "f4"))
    pair = [
        Tensor("a", "INT64", np.ones((2, 5), "i8")),
        Tensor("b", "BOOL", np.ones((2, 2), "?")),
    ]
    words = [Tensor("words", "BYTES", _objects(b"one", "zwölf".encode(), b""))]
    asked = {"outputs": [{"name": "logits"}], "parameters": {"timeout": {"int64_param": 10**7}}}
    requests = [
        _raw("digits", [pixels], id="7", **asked),
        _raw("digits", [many]),
        _raw("pair", pair, parameters={"priority": {"uint64_param": 1}}),
        _raw("words", words),
        _typed("digits", [pixels]),
        _typed("pair", pair, model_version="1"),
        _typed("words", words),
    ]
    return [each.SerializeToString() for each in requests]


def mutated(seeds: list[bytes], count: int, *, seed: int) -> Iterator[bytes]:
    """Return `count` mutants of the seeds, each of one to four changes; always the same ones."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            chance.choice(_CHANGES)(data, chance, seeds)
        yield bytes(data)


# ---------------------------------------------------------------- changes, in place


def _flip(data: bytearray, chance: random.Random, _seeds: list[bytes]) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random, _seeds: list[bytes]) -> None:
    """Write a value that is special as a length, size or tag."""
    if data:
        data[_place(data, chance)] = chance.choice((0, 1, 0x3A, 0x2A, 0x7F, 0x80, 0xFF))


def _cut(data: bytearray, chance: random.Random, _seeds: list[bytes]) -> None:
    del data[_place(data, chance) :]


def _remove(data: bytearray, chance: random.Random, _seeds: list[bytes]) -> None:
    at = _place(data, chance)
    del data[at : at + chance.randint(1, 20)]


def _insert(data: bytearray, chance: random.Random, _seeds: list[bytes]) -> None:
    at = _place(data, chance)
    data[at:at] = chance.randbytes(chance.randint(1, 12))


def _repeat(data: bytearray, chance: random.Random, _seeds: list[bytes]) -> None:
    """Double a part: often a whole field."""
    at = _place(data, chance)
    data[at:at] = data[at : at + chance.randint(1, 400)]


def _splice(data: bytearray, chance: random.Random, seeds: list[bytes]) -> None:
    """Go on as another request does."""
    other = chance.choice(seeds)
    data[_place(data, chance) :] = other[_place(other, chance) :]


def _append(data: bytearray, chance: random.Random, seeds: list[bytes]) -> None:
    """Merge another request into this one: all its fields come again."""
    data += chance.choice(seeds)


_CHANGES = (_flip, _flip, _overwrite, _overwrite, _cut, _remove, _insert, _repeat, _splice, _append)


def _place(data: bytes | bytearray, chance: random.Random) -> int:
    """Return a place; near the beginning in half of all cases, for there the structure is."""
    if not data:
        return 0
    return chance.randrange(min(len(data), 150) if chance.random() < 0.5 else len(data))


# ---------------------------------------------------------------- requests


def _raw(model: str, tensors: list[Tensor], **fields: object) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, **fields)  # type: ignore[arg-type]  # by name
    encode_inputs(request, tensors)
    return request


def _typed(model: str, tensors: list[Tensor], **fields: object) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, **fields)  # type: ignore[arg-type]  # by name
    for each in tensors:
        request.inputs.add(
            name=each.name,
            datatype=each.datatype,
            shape=each.array.shape,
            contents=to_typed(each.array),
        )
    return request


def _objects(*elements: bytes) -> Array:
    array = np.empty((len(elements), 1), dtype=object)
    array[:, 0] = elements
    return array
