import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from coalmine.errors import InvalidRequest, Unavailable
from coalmine.inference import inference_pb2 as pb
from coalmine_server.grpc_front.streaming import FINAL, StreamCalls
from coalmine_server.wire.requests import InferRequest


def asked(request_id: str) -> InferRequest:
    return InferRequest(pb.ModelInferRequest(model_name="m", id=request_id), (), 0)


class FakeCall:
    """One call's two directions: requests as the test puts them, responses as they are written."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[InferRequest | InvalidRequest | None] = asyncio.Queue()
        self.read = 0
        self.written: list[pb.ModelStreamInferResponse] = []
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.is_gone = False

    def ask(self, *ids: str) -> None:
        for each in ids:
            self._requests.put_nowait(asked(each))

    def ask_badly(self) -> None:
        self._requests.put_nowait(InvalidRequest("malformed message"))

    def end(self) -> None:
        self._requests.put_nowait(None)

    async def requests(self) -> AsyncIterator[InferRequest | InvalidRequest]:
        while (request := await self._requests.get()) is not None:
            self.read += 1
            yield request

    async def write(self, response: bytes) -> None:
        await self.may_write.wait()
        if self.is_gone:
            raise grpc.aio.InternalError
        self.written.append(pb.ModelStreamInferResponse.FromString(response))

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def log_ids(self) -> list[str]:
        return [each.infer_response.id for each in self.written]


class Model:
    """Answers the requests that the test lets it answer."""

    def __init__(self) -> None:
        self.output = b"1234"
        self.running: dict[str, asyncio.Future[None]] = {}
        self.cancelled: list[str] = []

    async def answer(self, request: InferRequest, context: Any) -> bytes:
        message = request.message
        self.running[message.id] = asyncio.get_running_loop().create_future()
        try:
            await self.running[message.id]
        except asyncio.CancelledError:
            self.cancelled.append(message.id)
            raise
        answer = pb.ModelInferResponse(model_name="m", id=message.id)
        answer.raw_output_contents.append(self.output)
        answer.parameters["own"].string_param = "kept"
        return answer.SerializeToString()

    def finish(self, *ids: str) -> None:
        for each in ids:
            self.running[each].set_result(None)

    def fail(self, request: str, error: Exception) -> None:
        self.running[request].set_exception(error)


class Bench:
    """One open stream over doubles."""

    def __init__(self, group: asyncio.TaskGroup, in_flight_max: int = 4) -> None:
        self.call = FakeCall()
        self.model = Model()
        self.unsent_bytes = 0
        self.streams = StreamCalls(
            self.model.answer, self._track, in_flight_max=in_flight_max, unsent_bytes_max=1000
        )
        context: Any = self.call
        self.serving = group.create_task(self._ended(context))
        self.error: Exception | None = None

    def _track(self, size: int) -> None:
        self.unsent_bytes += size

    async def _ended(self, context: Any) -> None:
        try:
            await self.streams.serve(self.call.requests(), context)
        except Unavailable as error:
            self.error = error


async def settled() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_requests_of_one_stream_run_at_the_same_time() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a", "b", "c")
        await settled()
        assert list(bench.model.running) == ["a", "b", "c"]
        bench.model.finish("a", "b", "c")
        bench.call.end()


async def test_responses_keep_the_order_of_their_requests() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a", "b", "c")
        await settled()
        bench.model.finish("c", "b")
        await settled()
        assert bench.call.log_ids == []
        bench.model.finish("a")
        await settled()
        assert bench.call.log_ids == ["a", "b", "c"]
        bench.call.end()


async def test_a_response_does_not_wait_for_the_end_of_the_stream() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a")
        await settled()
        bench.model.finish("a")
        await settled()
        assert bench.call.log_ids == ["a"]
        assert bench.call.written[0].infer_response.parameters[FINAL].bool_param
        bench.call.end()
    assert bench.error is None


async def test_a_failed_request_is_told_by_its_id_and_the_stream_goes_on() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("bad", "good")
        await settled()
        bench.model.fail("bad", InvalidRequest("model 'm' version 1: no"))
        bench.model.finish("good")
        bench.call.end()
    bad, good = bench.call.written
    assert (bad.error_message, bad.infer_response.id) == ("model 'm' version 1: no", "bad")
    assert bad.infer_response.model_name == "m"
    assert (good.error_message, good.infer_response.id) == ("", "good")
    assert bench.error is None


async def test_what_can_not_be_read_is_an_error_of_its_own_and_the_stream_goes_on() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask_badly()
        bench.call.ask("good")
        await settled()
        bench.model.finish("good")
        bench.call.end()
    bad, good = bench.call.written
    assert bad.error_message == "malformed message"
    assert (good.error_message, good.infer_response.id) == ("", "good")


@pytest.mark.parametrize("size", [0, 100, 128, 16_384, 3_000_000])
async def test_an_answer_of_any_size_is_whole_in_its_response(size: int) -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.model.output = bytes(size)
        bench.call.ask("a")
        await settled()
        bench.model.finish("a")
        bench.call.end()
    (answer,) = (each.infer_response for each in bench.call.written)
    assert [len(each) for each in answer.raw_output_contents] == [size]
    assert answer.parameters["own"].string_param == "kept"
    assert answer.parameters[FINAL].bool_param


async def test_an_unexpected_error_shows_an_incident_and_not_its_text() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a")
        await settled()
        bench.model.fail("a", RuntimeError("the password is x"))
        bench.call.end()
    message = bench.call.written[0].error_message
    assert message.startswith("internal error, incident ")
    assert "password" not in message


async def test_no_more_is_read_while_as_many_as_may_be_are_in_flight() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group, in_flight_max=2)
        bench.call.ask("a", "b", "c")
        await settled()
        assert bench.call.read == 2
        bench.model.finish("b")
        await settled()
        assert bench.call.read == 2, "b is done, but not written: a is before it"
        bench.model.finish("a")
        await settled()
        assert list(bench.model.running) == ["a", "b", "c"]
        bench.model.finish("c")
        bench.call.end()
    assert bench.call.log_ids == ["a", "b", "c"]


async def test_a_caller_that_does_not_read_is_not_read_from_either() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group, in_flight_max=2)
        bench.call.may_write.clear()
        bench.call.ask("a", "b", "c")
        await settled()
        bench.model.finish("a", "b")
        await settled()
        assert bench.call.read == 2
        bench.call.may_write.set()
        await settled()
        bench.model.finish("c")
        bench.call.end()
    assert bench.call.log_ids == ["a", "b", "c"]


async def test_a_cancelled_stream_cancels_what_is_in_flight() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a", "b")
        await settled()
        bench.serving.cancel()
    assert bench.model.cancelled == ["a", "b"]
    bench.streams.drain()  # which finds no stream any more


async def test_draining_answers_what_was_read_and_then_ends_the_stream() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a", "b")
        await settled()
        bench.streams.drain()
        bench.call.ask("late")
        await settled()
        assert not bench.serving.done()
        bench.model.finish("a", "b")
    assert bench.call.log_ids == ["a", "b"]
    assert str(bench.error) == "the server is draining: a stream takes no more requests"


async def test_a_stream_that_nobody_writes_to_does_not_hold_up_the_end() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        await asyncio.sleep(0)
        bench.streams.drain()  # before the first of its requests could be read
    assert isinstance(bench.error, Unavailable)


async def test_draining_does_not_fail_a_stream_whose_requests_have_all_come() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.ask("a")
        bench.call.end()
        await settled()
        bench.streams.drain()
        bench.model.finish("a")
    assert (bench.call.log_ids, bench.error) == (["a"], None)


async def test_a_stream_that_begins_while_draining_is_turned_away() -> None:
    call, model = FakeCall(), Model()
    streams = StreamCalls(model.answer, lambda _: None)
    streams.drain()
    context: Any = call
    with pytest.raises(Unavailable):
        await streams.serve(call.requests(), context)


async def test_a_caller_who_does_not_read_is_not_answered_far_ahead() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.model.output = b"x" * 600
        bench.call.may_write.clear()
        bench.call.ask("a", "b")
        await settled()
        bench.model.finish("a", "b")
        await settled()
        assert bench.unsent_bytes > 1200, "what waits to be sent is in flight"
        bench.call.ask("c")
        await settled()
        assert list(bench.model.running) == ["a", "b", "c"], "one that was read before"
        bench.call.ask("d")
        await settled()
        assert "d" not in bench.model.running
        bench.call.may_write.set()
        await settled()
        assert "d" in bench.model.running
        bench.model.finish("c", "d")
        bench.call.end()
    assert bench.unsent_bytes == 0
    assert bench.call.log_ids == ["a", "b", "c", "d"]


async def test_a_caller_who_is_gone_ends_the_stream_without_a_word() -> None:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group)
        bench.call.is_gone = True
        bench.call.ask("a", "b", "c")
        await settled()
        bench.model.finish("a")
    assert bench.error is None
    assert bench.model.cancelled == ["b", "c"]
    assert bench.unsent_bytes == 0
