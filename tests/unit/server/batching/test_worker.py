import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from coalmine.errors import ModelFailed, StartError
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, decode_outputs
from coalmine_server.batching.burst import Burst
from coalmine_server.batching.request_queue import PendingRequest, QueueLimits, RequestQueue
from coalmine_server.batching.worker import Worker
from coalmine_server.runtime.execution import BatchRun
from coalmine_server.runtime.program import Program
from coalmine_server.signature import Arrays, CheckedRequest, Signature, TensorSpec
from tests.doubles.server_parts import FakeProgram, FakeTime

SPEC = TensorSpec("x", "FP32", (-1, 1))
SIGNATURE = Signature("m", 1, 8, (SPEC,), (SPEC,))


class Bench:
    """A worker, and what it posts."""

    def __init__(self, opening: Callable[[], Program], time: FakeTime | None = None) -> None:
        self.posted: queue.Queue[Callable[[], object]] = queue.Queue()
        self.time = time or FakeTime()
        self.slept: list[float] = []
        self.worker = Worker(
            signature=SIGNATURE,
            open_program=opening,
            clock=self.time,
            post=self.posted.put,
            sleep=self.slept.append,
        )

    def open(self) -> Exception | None:
        found: list[Exception | None] = []
        self.worker.start(found.append)
        self.hear()
        return found[0]

    def run(self, *batch: CheckedRequest) -> BatchRun:
        burst = Burst.of_batch([pending(each) for each in batch], self.time)
        notify: list[bool] = []
        self.worker.submit(burst, notify.append)
        self.hear()
        assert notify == [True]
        ((_, _, ran),) = burst.collect_ended()
        return ran

    def end(self) -> None:
        """Let the worker do all it has, and hear what it posted."""
        self.worker.stop()
        assert self.worker.join(10)
        while not self.posted.empty():
            self.hear()

    def hear(self) -> None:
        self.posted.get(timeout=10)()


def pending(request: CheckedRequest) -> PendingRequest:
    future: Future[Any] = Future()
    return PendingRequest(request, 1, ((1,),), 0, 0, None, future, None)  # type: ignore[arg-type]  # no loop here


def asked(value: float) -> CheckedRequest:
    return CheckedRequest((np.full((1, 1), value, "f4"),), 1, ((1,),), (0,), raw=True)


def test_a_worker_runs_its_program_until_it_is_stopped_and_then_closes_it() -> None:
    program = FakeProgram()
    bench = Bench(lambda: program)
    assert bench.open() is None
    assert (bench.worker.nbytes, bench.worker.device) == (1000, "cpu")
    (answer,) = bench.run(asked(2)).results
    assert isinstance(answer, bytes)
    assert decode_outputs(pb.ModelInferResponse.FromString(answer))[0].array.tolist() == [[4]]
    assert not program.is_closed
    bench.worker.stop()
    assert bench.worker.join(10)
    assert program.is_closed


def test_a_program_that_can_not_be_opened_is_told_and_the_thread_ends() -> None:
    def opening() -> Program:
        raise StartError("not a model")

    bench = Bench(opening)
    failure = bench.open()
    assert isinstance(failure, StartError)
    assert bench.worker.join(10)


def test_what_opened_the_program_is_let_go_of_with_the_files_bytes() -> None:
    class Opening:
        """Holds the bytes of a model's file."""

        def __call__(self) -> Program:
            return FakeProgram()

        def __del__(self) -> None:
            gone.append(True)

    gone: list[bool] = []
    bench = Bench(Opening())
    bench.open()
    assert gone
    bench.worker.stop()


def test_a_bug_of_ours_fails_its_batch_and_the_thread_lives_on() -> None:
    class Broken(FakeProgram):
        """Raises what no program should, once."""

        def run(self, inputs: Arrays) -> list[Array]:
            if not self.runs:
                self.runs.append(())
                raise KeyError("secret")
            return super().run(inputs)

    bench = Bench(Broken)
    bench.open()
    failures: Any = bench.run(asked(1), asked(2)).results
    assert [str(each) for each in failures] == ["model 'm' version 1: KeyError"] * 2
    assert all(isinstance(each, ModelFailed) for each in failures)
    assert isinstance(bench.run(asked(1)).results[0], bytes)
    bench.worker.stop()


class Takes:
    """A program whose forwards take some time, on the clock of a test."""

    def __init__(self, time: FakeTime, took_ns: int) -> None:
        self._time = time
        self._took_ns = took_ns
        self.program = FakeProgram(self._pass)

    def _pass(self, _: object) -> bool:
        self._time.now_ns += self._took_ns
        return False


def waiting_of(*values: float) -> RequestQueue:
    waiting = RequestQueue("m", QueueLimits(1, 100, 0, 1_000))
    for value in values:
        waiting.admit(pending(asked(value)))
    return waiting


@pytest.mark.parametrize(("took_us", "notify"), [(100, [True]), (600, [False, True])])
def test_a_worker_tells_of_several_requests_together_but_not_later_than_a_millisecond_of_work(
    took_us: int, notify: list[bool]
) -> None:
    time = FakeTime()
    takes = Takes(time, took_us * 1_000)
    bench = Bench(lambda: takes.program, time)
    bench.open()
    burst = Burst.of_waiting(waiting_of(1, 2, 3), time)
    heard: list[bool] = []
    bench.worker.submit(burst, heard.append)
    bench.end()
    assert heard == notify
    assert len(takes.program.runs) == len(burst.collect_ended()) == 3


def test_a_worker_waits_a_moment_for_others_only_where_one_of_its_last_two_bursts_had_three() -> (
    None
):
    bench = Bench(FakeProgram)
    bench.open()
    slept_after: list[int] = []
    for values in ((1, 2), (1, 2, 3), (1,), (2,), (3,)):
        burst = Burst.of_waiting(waiting_of(*values), bench.time)
        bench.worker.submit(burst, lambda _: slept_after.append(len(bench.slept)))
        bench.hear()
    bench.end()
    assert slept_after == [0, 0, 1, 2, 2]
    assert bench.slept == [0.0005] * 2


def test_a_request_that_is_over_when_its_turn_comes_is_not_run() -> None:
    program = FakeProgram()
    bench = Bench(lambda: program)
    bench.open()
    over = pending(asked(2))
    waiting = waiting_of(1)
    waiting.admit(over)
    waiting.admit(pending(asked(3)))
    over.future.cancel()
    bench.worker.submit(Burst.of_waiting(waiting, bench.time), print)
    bench.end()
    assert len(program.runs) == 2
    assert not waiting


@pytest.mark.parametrize("started", [True, False])
def test_a_worker_that_runs_nothing_ends_at_once(started: bool) -> None:
    bench = Bench(FakeProgram)
    if started:
        bench.open()
    bench.worker.stop()
    assert bench.worker.join(10)
