"""Models that take and give strings, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from torch import nn

from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, decode_outputs, to_typed
from tests.doubles.server_rig import ServerRig, infer_request, serving
from tests.models import Linear, Words, config, write_model


def declared(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


WORDS = declared("words", "BYTES", 1)
SHOUTED = [declared("shouted", "BYTES", 1), declared("lengths", "INT64", 1)]


class Reversed(nn.Module):
    """BYTES [-1] -> BYTES [-1]: the words from the last to the first."""

    def forward(self, words: list[str]) -> list[str]:
        found: list[str] = []
        for i in range(len(words)):
            found.append(words[len(words) - 1 - i])  # noqa: PERF401 - TorchScript compiles it
        return found


class Joins(nn.Module):
    """BYTES [-1] -> BYTES []: all words as one, and an error at the word `poison`."""

    def forward(self, words: list[str]) -> list[str]:
        found: list[str] = []
        for word in words:
            if word == "poison":
                raise ValueError("poison")
            found.append("<" + word + ">")
        return found


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ServerRig]:
    write_model(tmp_path, "words", {1: Words()}, config(inputs=[WORDS], outputs=SHOUTED))
    scalars = config(
        inputs=[declared("words", "BYTES")],
        outputs=[declared("marked", "BYTES")],
        batching={"max_delay": "20ms"},
    )
    write_model(tmp_path, "marks", {1: Joins()}, scalars)
    whole = config(
        inputs=[declared("words", "BYTES", -1)],
        outputs=[declared("words", "BYTES", -1)],
        max_batch_size=0,
    )
    write_model(tmp_path, "reversed", {1: Reversed()}, whole)
    async with serving(tmp_path) as running:
        yield running


def words(*elements: str | bytes, rank: int = 2) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape((-1,) + (1,) * (rank - 1))


async def test_strings_go_in_and_come_back_row_by_row(rig: ServerRig) -> None:
    outputs = await rig.infer("words", {"words": words("one", "zwölf", "")})
    assert outputs["shouted"].tolist() == [[b"ONE"], ["ZWöLF".encode()], [b""]]
    assert outputs["lengths"].tolist() == [[3], [6], [0]]


async def test_typed_strings_are_answered_typed(rig: ServerRig) -> None:
    request = pb.ModelInferRequest(model_name="words")
    array = words("one", "two")
    request.inputs.add(name="words", datatype="BYTES", shape=[2, 1], contents=to_typed(array))
    response = await rig.stub.ModelInfer(request)
    assert not response.raw_output_contents
    assert list(response.outputs[0].contents.bytes_contents) == [b"ONE", b"TWO"]


async def test_without_a_batch_dimension_a_list_of_any_length_goes_whole(rig: ServerRig) -> None:
    for sent in ([], ["a"], ["a", "b", "c"]):
        outputs = await rig.infer("reversed", {"words": words(*sent, rank=1)})
        assert [each.decode() for each in outputs["words"]] == sent[::-1]


async def test_requests_of_strings_share_a_batch_and_each_gets_its_own(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        calls = {
            number: group.create_task(
                rig.infer("marks", {"words": words(*[f"{number}"] * (number % 3 + 1), rank=1)})
            )
            for number in range(12)
        }
    for number, call in calls.items():
        expected = [f"<{number}>".encode()] * (number % 3 + 1)
        assert call.result()["marked"].tolist() == expected


async def test_a_poisonous_string_fails_its_own_request_alone(rig: ServerRig) -> None:
    async with asyncio.TaskGroup() as group:
        good = [group.create_task(marked(rig, f"w{number}")) for number in range(4)]
        bad = group.create_task(marked(rig, "poison"))
    assert [each.result() for each in good] == [f"<w{number}>" for number in range(4)]
    assert bad.result() == "INTERNAL: model 'marks' version 1: ValueError: poison"


async def marked(rig: ServerRig, word: str) -> str:
    try:
        outputs = await rig.infer("marks", {"words": words(word, rank=1)})
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    (answer,) = outputs["marked"]
    text: str = answer.decode()
    return text


async def test_bytes_that_are_no_text_are_an_invalid_argument(rig: ServerRig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await rig.infer("words", {"words": words(b"fine", b"\xff")})
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.value.details() == (
        "model 'words' version 1: input 'words' BYTES: element 1 is not UTF-8"
    )


@pytest.mark.parametrize(
    "blob", [b"\x05\x00\x00\x00on", b"\xff\xff\xff\xff", b"", b"\x01\x00\x00\x00ab"]
)
async def test_malformed_bytes_are_an_invalid_argument(rig: ServerRig, blob: bytes) -> None:
    request = infer_request("words", {"words": words("one")})
    request.raw_input_contents[0] = blob
    with pytest.raises(grpc.aio.AioRpcError, match="input 'words' BYTES") as refusal:
        await rig.stub.ModelInfer(request)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_metadata_and_config_say_bytes_and_string(rig: ServerRig) -> None:
    metadata = await rig.stub.ModelMetadata(pb.ModelMetadataRequest(name="words"))
    assert metadata.inputs[0].datatype == "BYTES"
    found = (await rig.stub.ModelConfig(pb.ModelConfigRequest(name="words"))).config
    assert found.input[0].data_type == pb.TYPE_STRING
    assert found.output[0].data_type == pb.TYPE_STRING


async def test_strings_travel_far_beyond_the_size_that_protobuf_reads(rig: ServerRig) -> None:
    long = [f"{number}-" + "x" * 10_000 for number in range(30)]
    request = infer_request("words", {"words": words(*long)})
    assert request.ByteSize() > 300_000
    outputs = {each.name: each.array for each in decode_outputs(await rig.stub.ModelInfer(request))}
    assert outputs["shouted"][:, 0].tolist() == [each.upper().encode() for each in long]


async def test_a_model_that_takes_no_strings_is_refused_at_the_start(tmp_path: Path) -> None:
    content = config(inputs=[declared("pixels", "BYTES", 64)])
    write_model(tmp_path, "linear", {1: Linear()}, content)
    with pytest.raises(BaseExceptionGroup) as refusal:
        async with serving(tmp_path):
            pass
    (error,) = leaves(refusal.value)
    assert isinstance(error, StartError)
    assert "input 'pixels' is declared BYTES, the module takes Tensor there" in str(error)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
