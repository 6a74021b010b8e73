"""Both clients against a real gRPC server."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import coalmine_client
from coalmine.errors import InvalidTensor
from coalmine_client import Answer, AsyncClient, Client
from tests.doubles.inference_server import FakeInference, serving

ONES = {"pixels": np.ones((2, 4), np.float32)}


@pytest.fixture
def server() -> FakeInference:
    return FakeInference()


@pytest.fixture
def target(server: FakeInference) -> Iterator[str]:
    with serving(server) as address:
        yield address


def infer_by(
    kind: type[Client] | type[AsyncClient], target: str, *args: Any, **kwargs: Any
) -> Answer:
    """Make one call with either client, so that each test holds for both."""
    if kind is Client:
        with Client(target) as client:
            return client.infer(*args, **kwargs)

    async def asked() -> Answer:
        async with AsyncClient(target) as client:
            return await client.infer(*args, **kwargs)

    return asyncio.run(asked())


both = pytest.mark.parametrize("kind", [Client, AsyncClient])


@both
def test_an_answer_holds_the_models_outputs_and_echoes_the_id(
    kind: Any, server: FakeInference, target: str
) -> None:
    answer = infer_by(kind, target, "digits", ONES, version="3", id="r-1")

    assert (answer.model_name, answer.model_version, answer.id) == ("digits", "3", "r-1")
    np.testing.assert_array_equal(answer.outputs["sum"], np.array([4, 4], np.float32))
    assert answer.outputs["sum"].dtype == np.float32


@both
def test_a_server_that_is_no_router_leaves_variant_and_revision_empty(
    kind: Any, server: FakeInference, target: str
) -> None:
    answer = infer_by(kind, target, "digits", ONES)

    assert (answer.variant, answer.revision) == ("", 0)


@both
def test_variant_and_revision_come_from_the_routers_trailing_metadata(
    kind: Any, server: FakeInference, target: str
) -> None:
    server.canary_every = 1

    answer = infer_by(kind, target, "digits", ONES)

    assert (answer.variant, answer.revision) == ("canary", 8)
    assert ("x-coalmine-variant", "canary") in answer.trailing_metadata


@both
def test_only_the_outputs_asked_for_come_back(
    kind: Any, server: FakeInference, target: str
) -> None:
    server.model = lambda _: {"a": ("FP32", np.zeros(1)), "b": ("INT8", np.zeros(1, np.int8))}

    assert list(infer_by(kind, target, "digits", ONES, outputs=["b"]).outputs) == ["b"]
    assert [each.name for each in server.requests[0].outputs] == ["b"]


@both
def test_metadata_of_a_call_reaches_the_server(
    kind: Any, server: FakeInference, target: str
) -> None:
    infer_by(kind, target, "digits", ONES, metadata=[("x-user-id", "u1"), ("k-bin", b"\xff")])

    assert ("x-user-id", "u1") in server.metadata[0]
    assert ("k-bin", b"\xff") in server.metadata[0]


@both
def test_a_refusal_arrives_as_the_rpc_error_that_it_is(
    kind: Any, server: FakeInference, target: str
) -> None:
    server.errors = iter([(grpc.StatusCode.NOT_FOUND, "no model 'digits'")])

    with pytest.raises(grpc.RpcError) as caught:
        infer_by(kind, target, "digits", ONES)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "no model 'digits'"


@both
def test_a_call_gives_up_when_its_own_timeout_is_over(
    kind: Any, server: FakeInference, target: str
) -> None:
    given_up = threading.Event()

    def slow(_inputs: Any) -> Any:
        given_up.wait(60)
        return {}

    server.model = slow

    with pytest.raises(grpc.RpcError) as caught:
        infer_by(kind, target, "digits", ONES, timeout_s=0.05)

    given_up.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@both
def test_a_message_of_more_than_grpcs_default_four_mebibytes_passes_both_ways(
    kind: Any, server: FakeInference, target: str
) -> None:
    server.model = lambda inputs: {"same": ("FP32", inputs["pixels"])}
    large = np.arange(2 * 1024 * 1024, dtype=np.float32).reshape(2, -1)

    answer = infer_by(kind, target, "digits", {"pixels": large})

    np.testing.assert_array_equal(answer.outputs["same"], large)


@both
def test_an_array_that_the_protocol_cant_carry_is_refused_before_it_is_sent(
    kind: Any, server: FakeInference, target: str
) -> None:
    with pytest.raises(InvalidTensor, match="complex128"):
        infer_by(kind, target, "digits", {"pixels": np.zeros(1, complex)})

    assert server.requests == []


def test_the_clients_metadata_goes_with_every_call(server: FakeInference, target: str) -> None:
    with Client(target, metadata=[("x-team", "blue")]) as client:
        client.infer("digits", ONES, metadata=[("x-user-id", "u1")])

    assert {("x-team", "blue"), ("x-user-id", "u1")} <= set(server.metadata[0])


def test_the_other_calls_tell_what_the_server_says(target: str) -> None:
    with Client(target) as client:
        assert client.server_live() is True
        assert client.server_ready() is False
        assert client.model_ready("digits") is True
        assert client.model_ready("digits", "9") is False
        assert client.model_ready("unknown") is False
        assert client.model_metadata("digits").inputs[0].name == "pixels"
        assert client.server_metadata().extensions == ["none"]


async def test_the_other_calls_of_the_asyncio_client_tell_the_same(target: str) -> None:
    async with AsyncClient(target) as client:
        assert await client.server_live() is True
        assert await client.server_ready() is False
        assert await client.model_ready("digits") is True
        assert await client.model_ready("unknown") is False
        assert (await client.model_metadata("digits")).inputs[0].datatype == "FP32"
        assert (await client.server_metadata()).name == "fake"
        assert client.is_connected


def test_the_package_has_the_clients_names_and_no_others() -> None:
    assert coalmine_client.Client is Client
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        coalmine_client.Nothing  # noqa: B018 - the look-up is the test


async def test_a_client_that_reaches_nobody_says_so() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.server_live()

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not client.is_connected
