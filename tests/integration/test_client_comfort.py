"""What the client does beside a call: converting, splitting, trying again, streaming."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import coalmine_client
from coalmine.errors import InvalidTensor
from coalmine_client import Client, Retries
from tests.doubles.inference_server import FakeInference, serving

QUICK = Retries(first_s=0.001, longest_s=0.002)
GONE = (grpc.StatusCode.UNAVAILABLE, "not now")


@pytest.fixture
def server() -> FakeInference:
    return FakeInference()


@pytest.fixture
def target(server: FakeInference) -> Iterator[str]:
    with serving(server) as address:
        yield address


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    with Client(target, retries=QUICK) as opened:
        yield opened


def test_dir_shows_every_public_name_and_each_is_there() -> None:
    assert set(coalmine_client.__all__) <= set(dir(coalmine_client))
    for name in coalmine_client.__all__:
        assert getattr(coalmine_client, name).__name__ == name


# ---------------------------------------------------------------- converting


@pytest.mark.parametrize(
    "pixels", [np.ones((2, 4)), np.ones((2, 4), np.int64), [[1] * 4] * 2, [[1.0] * 4] * 2]
)
def test_inputs_are_sent_in_the_models_datatype(
    client: Client, server: FakeInference, pixels: Any
) -> None:
    answer = client.infer("digits", {"pixels": pixels})

    assert server.requests[0].inputs[0].datatype == "FP32"
    np.testing.assert_array_equal(answer.outputs["sum"], [4, 4])


def test_a_model_is_asked_for_its_metadata_once(client: Client, server: FakeInference) -> None:
    for _ in range(3):
        client.infer("digits", {"pixels": [[1, 2]]})

    assert server.asked_metadata == 1


def test_a_model_that_became_another_is_asked_again(client: Client, server: FakeInference) -> None:
    client.infer("digits", {"pixels": [[1, 2]]})
    server.datatypes = {"pixels": "INT64"}
    server.errors = iter([(grpc.StatusCode.INVALID_ARGUMENT, "expected INT64")])

    with pytest.raises(coalmine_client.InvalidArgument):
        client.infer("digits", {"pixels": [[1, 2]]})
    client.infer("digits", {"pixels": [[1, 2]]})

    assert server.requests[-1].inputs[0].datatype == "INT64"


def test_an_inexact_value_is_refused_before_it_is_sent(
    client: Client, server: FakeInference
) -> None:
    with pytest.raises(InvalidTensor, match=r"'pixels': FP32 can't hold 0.1 at \[0, 0\]"):
        client.infer("digits", {"pixels": np.full((1, 4), 0.1)})

    assert server.requests == []


# ---------------------------------------------------------------- splitting


def test_a_batch_over_the_limit_is_split_on_request_and_put_together_in_order(
    client: Client, server: FakeInference
) -> None:
    server.rows_max = 3
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)

    answer = client.infer("digits", {"pixels": rows}, split=True)

    assert [each.inputs[0].shape[0] for each in server.requests] == [3, 3, 2]
    np.testing.assert_array_equal(answer.outputs["sum"], np.arange(8))


@pytest.mark.parametrize(("split", "calls"), [(False, 1), (5, 2), (True, 1), (8, 1)])
def test_a_batch_is_split_by_a_number_of_ones_own_or_not_at_all(
    client: Client, server: FakeInference, split: Any, calls: int
) -> None:
    client.infer("digits", {"pixels": np.ones((8, 1), np.float32)}, split=split)

    assert len(server.requests) == calls


def test_an_output_that_is_not_row_by_row_is_not_put_together(
    client: Client, server: FakeInference
) -> None:
    server.model = lambda _: {"sum": ("FP32", np.zeros(1, np.float32))}

    with pytest.raises(InvalidTensor, match="a row for each"):
        client.infer("digits", {"pixels": np.ones((4, 1), np.float32)}, split=2)


def test_who_answered_the_parts_is_told_of_all(client: Client, server: FakeInference) -> None:
    server.canary_every = 2

    answer = client.infer("digits", {"pixels": np.ones((4, 1), np.float32)}, split=2)

    assert (answer.variant, answer.revision) == ("stable,canary", 8)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "name",
    [
        "Aborted",
        "Cancelled",
        "DeadlineExceeded",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "NotFound",
        "PermissionDenied",
        "ResourceExhausted",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
    ],
)
@pytest.mark.parametrize("is_from_router", [False, True])
def test_each_code_is_a_class_that_old_clauses_catch(
    server: FakeInference, target: str, name: str, is_from_router: bool
) -> None:
    kind: Any = getattr(coalmine_client, name)
    words = "".join(f"_{c}" if c.isupper() else c for c in name).strip("_").upper()
    code = grpc.StatusCode[words]
    server.is_from_router = is_from_router
    server.errors = iter([(code, "so it is")])

    with Client(target, retries=None) as client, pytest.raises(grpc.RpcError) as caught:
        client.infer("digits", {"pixels": np.ones((1, 1), np.float32)})

    assert type(caught.value) is kind
    assert (caught.value.code(), caught.value.details()) == (code, "so it is")
    assert caught.value.origin == ("router" if is_from_router else "server")  # type: ignore[attr-defined]


async def test_the_asyncio_client_raises_the_same(server: FakeInference, target: str) -> None:
    server.errors = iter([(grpc.StatusCode.NOT_FOUND, "no such")])
    async with coalmine_client.AsyncClient(target) as client:
        with pytest.raises(coalmine_client.NotFound) as caught:
            await client.infer("digits", {"pixels": np.ones((1, 1), np.float32)})

    assert isinstance(caught.value, grpc.aio.AioRpcError)


# ---------------------------------------------------------------- trying again


def test_a_call_that_finds_nobody_is_made_again(client: Client, server: FakeInference) -> None:
    server.errors = iter([GONE, GONE])

    client.infer("digits", {"pixels": [[1]]})

    assert len(server.requests) == 3


def test_other_failures_are_not_made_again(client: Client, server: FakeInference) -> None:
    server.errors = iter([(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")])

    with pytest.raises(coalmine_client.ResourceExhausted):
        client.infer("digits", {"pixels": [[1]]})

    assert len(server.requests) == 1


def test_without_retries_there_is_one_call(server: FakeInference, target: str) -> None:
    server.errors = iter([GONE])

    with Client(target, retries=None) as client, pytest.raises(coalmine_client.Unavailable):
        client.infer("digits", {"pixels": [[1]]})

    assert len(server.requests) == 1


def test_a_server_in_trouble_gets_no_more_than_the_budget(
    client: Client, server: FakeInference
) -> None:
    client.infer("digits", {"pixels": [[1]]})
    server.errors = itertools.repeat(GONE)
    server.requests.clear()

    for _ in range(50):
        with pytest.raises(coalmine_client.Unavailable):
            client.infer("digits", {"pixels": [[1]]})

    assert 60 <= len(server.requests) <= 50 + 10 + 50 * 0.2


def test_waiting_does_not_outlast_the_deadline(server: FakeInference, target: str) -> None:
    server.errors = itertools.repeat(GONE)
    slow = Retries(attempts=100, first_s=5, longest_s=5)
    began = time.monotonic()

    with Client(target, retries=slow) as client, pytest.raises(grpc.RpcError):
        client.infer("digits", {"pixels": [[1]]}, timeout_s=0.5)

    assert time.monotonic() - began < 3


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_s": -1}, {"budget": -1}])
def test_retries_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="Retries"):
        Retries(**wrong)


# ---------------------------------------------------------------- streams


def test_a_stream_answers_in_order_and_reads_no_further_than_its_bound(
    client: Client, server: FakeInference
) -> None:
    read = 0

    def batches() -> Iterator[dict[str, Any]]:
        nonlocal read
        for number in range(100):
            read += 1
            yield {"pixels": [[number]]}

    answers = client.stream("digits", batches(), in_flight=4)
    first = next(answers)
    time.sleep(0.1)

    # Four in flight behind the first, and one that waits for room.
    assert (first.outputs["sum"].tolist(), read <= 6) == ([0], True)
    assert [each.outputs["sum"].item() for each in answers] == list(range(1, 100))


def test_a_stream_that_is_left_ends_its_call_and_its_thread(
    client: Client, server: FakeInference
) -> None:
    before = threading.active_count()
    answers = client.stream("digits", ({"pixels": [[1]]} for _ in itertools.count()), in_flight=2)
    next(answers)
    answers.close()  # type: ignore[attr-defined]

    ends = time.monotonic() + 10
    while threading.active_count() > before + 2 and time.monotonic() < ends:
        time.sleep(0.01)
    assert threading.active_count() <= before + 2  # the server's own


def test_what_reading_the_batches_raises_comes_out_of_the_stream(client: Client) -> None:
    def batches() -> Iterator[dict[str, Any]]:
        yield {"pixels": [[1]]}
        raise LookupError("no more")

    answers = client.stream("digits", batches())

    assert next(answers).outputs["sum"].tolist() == [1]
    with pytest.raises(LookupError, match="no more"):
        next(answers)


def test_a_request_that_fails_ends_the_stream_with_its_words(client: Client) -> None:
    with pytest.raises(coalmine_client.CallError, match="no 'other'"):
        list(client.stream("other", [{"pixels": np.ones((1, 1), np.float32)}]))


def test_a_stream_through_a_client_that_is_closed_ends(target: str) -> None:
    client = Client(target)
    answers = client.stream("digits", ({"pixels": [[1]]} for _ in itertools.count()))
    next(answers)
    client.close()

    with pytest.raises((coalmine_client.Cancelled, ValueError)):
        list(answers)
