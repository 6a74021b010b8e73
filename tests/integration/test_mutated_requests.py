"""Requests made of valid ones by a mutation fuzzer; COALMINE_FUZZ asks for more of them."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from torch import Tensor, nn

from coalmine.errors import CoalmineError, NotFound
from coalmine.inference import MODEL_INFER
from coalmine.inference import inference_pb2 as pb
from coalmine_server.signature import Signature, TensorSpec
from coalmine_server.wire.inputs import check_request
from coalmine_server.wire.requests import read_infer
from tests.doubles.mutations import mutated, valid_requests
from tests.doubles.native_memory import resident_bytes
from tests.doubles.server_rig import ServerRig, serving
from tests.models import Linear, Words, config, write_model

ASKED = int(os.environ.get("COALMINE_FUZZ", "0"))
AT_ONCE = 16
RSS_BYTES_MAX = 40_000_000

SIGNATURES = {
    "digits": Signature(
        "digits",
        1,
        512,
        (TensorSpec("pixels", "FP32", (-1, 64)),),
        (TensorSpec("logits", "FP32", (-1, 10)),),
    ),
    "pair": Signature(
        "pair",
        1,
        32,
        (TensorSpec("a", "INT64", (-1, -1)), TensorSpec("b", "BOOL", (-1, 2))),
        (TensorSpec("c", "FP16", (-1,)),),
    ),
    "words": Signature(
        "words",
        1,
        32,
        (TensorSpec("words", "BYTES", (-1, 1)),),
        (TensorSpec("shouted", "BYTES", (-1, 1)), TensorSpec("lengths", "INT64", (-1, 1))),
    ),
}


def checked(data: bytes) -> str:
    """Return the code of the error that `data` earns before any model runs, or OK."""
    try:
        request = read_infer(data)
        if isinstance(request, CoalmineError):
            raise request
        signature = SIGNATURES.get(request.message.model_name)
        if signature is None:
            raise NotFound("no such model")
        check_request(signature, request)
    except CoalmineError as error:
        return error.code
    return "OK"


def test_mutated_bytes_are_read_or_refused_and_nothing_else_is_raised() -> None:
    codes = Counter(checked(data) for data in mutated(valid_requests(), ASKED or 20_000, seed=1))
    assert set(codes) == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}, codes
    assert codes["OK"] > sum(codes.values()) // 50, "mutants that go all the way"


# ---------------------------------------------------------------- over a socket


class Pair(nn.Module):
    """[-1] and [2] -> []."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.sum(1) + b.sum(1)).half()


def tensor(name: str, datatype: str, *shape: int) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    # As many rows as are sent at once fit: shedding is not what is looked for here.
    digits = config(max_batch_size=512, batching={"max_queue_rows": 100_000})
    write_model(tmp_path, "digits", {1: Linear()}, digits)
    pair = config(
        inputs=[tensor("a", "INT64", -1), tensor("b", "BOOL", 2)], outputs=[tensor("c", "FP16")]
    )
    write_model(tmp_path, "pair", {1: Pair()}, pair)
    words = config(
        inputs=[tensor("words", "BYTES", 1)],
        outputs=[tensor("shouted", "BYTES", 1), tensor("lengths", "INT64", 1)],
    )
    write_model(tmp_path, "words", {1: Words()}, words)
    async with serving(tmp_path) as running:
        yield running


ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a mutated time-out
}


@pytest.mark.timeout(600)
async def test_a_server_outlives_mutated_bytes_and_never_calls_them_its_own_fault(
    rig: ServerRig,
) -> None:
    count = ASKED or 2_000
    codes = await sent(rig, mutated(valid_requests(), 500, seed=2))
    before = resident_bytes()
    codes += await sent(rig, mutated(valid_requests(), count, seed=3))
    assert set(codes) <= ALLOWED, codes
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > count // 4
    assert resident_bytes() - before < RSS_BYTES_MAX
    assert set(await sent(rig, iter(valid_requests()))) <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,  # the typed request to a model that answers in FP16
    }


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("ModelInfer", b"\xff"),
        ("ModelReady", b"\x0a\x05m"),
        ("ModelMetadata", b"\x0a\x01\xff"),
        ("ModelConfig", b"\x07"),
        ("ModelStatistics", b"\x0a"),
        ("RepositoryIndex", b"\x80"),
        ("ServerLive", b"\x0a"),
        ("ServerReady", b"\x0a"),
        ("ServerMetadata", b"\x0a"),
        ("RepositoryModelLoad", b"\x12\x7f"),
        ("RepositoryModelUnload", b"\x12\x7f"),
    ],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument_of_every_method(
    rig: ServerRig, method: str, data: bytes
) -> None:
    service = MODEL_INFER.rpartition("/")[0]
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    call = rig.channel.unary_unary(f"/{service}/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(data, timeout=10)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.value.details() == f"{service}/{method}: malformed message"


async def sent(rig: ServerRig, requests: Iterator[bytes]) -> Counter[grpc.StatusCode]:
    """Return the codes that came back; several are in flight at once."""
    codes: Counter[grpc.StatusCode] = Counter()
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    call = rig.channel.unary_unary(f"/{MODEL_INFER}")

    async def send() -> None:
        for data in requests:
            try:
                answer = await call(data, timeout=30)
                pb.ModelInferResponse.FromString(answer)
                codes[grpc.StatusCode.OK] += 1
            except grpc.aio.AioRpcError as error:
                codes[error.code()] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(send())
    return codes
