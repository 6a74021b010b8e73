import asyncio
from itertools import count
from typing import Any

import grpc
import numpy as np

from coalmine_client.cli.infer.bulk import CallTally, run_bulk
from coalmine_client.client import Answer


def answer(variant: Any = "stable", version: Any = "1") -> Any:
    return Answer("m", version, "", {}, variant, 7, ())


def error(code: Any = grpc.StatusCode.UNAVAILABLE, variant: Any = "canary") -> Any:
    trailing = grpc.aio.Metadata(("x-coalmine-variant", variant))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details="gone")


def ticks(step_ns: Any = 1_000_000) -> Any:
    """Return a clock that goes on by a millisecond at every look."""
    return count(0, step_ns).__next__


async def run(
    call: Any,
    rows: Any = ({},),
    *,
    repeat: Any = 1,
    concurrency: Any = 1,
    progress: Any = lambda: None,
) -> Any:
    return await run_bulk(
        call, rows, repeat=repeat, concurrency=concurrency, progress=progress, now_ns=ticks()
    )


async def test_rows_are_sent_in_turn_and_again_from_the_first() -> None:
    sent = []

    async def call(inputs: Any) -> Any:
        sent.append(inputs["x"])
        return answer()

    await run(call, [{"x": 1}, {"x": 2}, {"x": 3}], repeat=7)

    assert sent == [1, 2, 3, 1, 2, 3, 1]


async def test_no_more_calls_than_asked_for_are_under_way_at_a_time() -> None:
    under_way = most = 0

    async def call(_inputs: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return answer()

    tally = await run(call, repeat=20, concurrency=3)

    assert (tally.calls, most) == (20, 3)


async def test_a_failed_call_is_counted_and_the_others_go_on() -> None:
    numbers = count()

    async def call(_inputs: Any) -> Any:
        if next(numbers) % 2:
            raise error()
        return answer()

    tally = await run(call, repeat=5)

    assert tally.by_status == {"OK": 3, "UNAVAILABLE": 2}
    assert tally.failed == {"canary": 2}
    assert tally.failures == 2
    assert tally.first_error == "gone (UNAVAILABLE)"


async def test_answers_are_counted_by_variant_and_version() -> None:
    answers = iter([answer("stable", "1"), answer("canary", "2"), answer("stable", "1")])

    async def call(_inputs: Any) -> Any:
        return next(answers)

    tally = await run(call, repeat=3)

    assert tally.answered == {("stable", "1"): 2, ("canary", "2"): 1}


async def test_progress_is_told_of_every_call_also_of_those_that_fail() -> None:
    told = []

    async def call(_inputs: Any) -> None:
        raise error()

    await run(call, repeat=4, progress=lambda: told.append(1))

    assert len(told) == 4


async def test_latencies_are_of_answered_calls_alone() -> None:
    outcomes = iter([answer(), error(), answer()])

    async def call(_inputs: Any) -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    tally = await run(call, repeat=3)

    assert tally.latencies_ms == [1.0, 1.0]
    assert tally.took_s == 0.006


def test_percentiles_are_those_of_numpy_and_nan_without_latencies() -> None:
    tally = CallTally(latencies_ms=[float(each) for each in range(101)])

    assert (tally.percentile_ms(50), tally.percentile_ms(99)) == (50, 99)
    assert np.isnan(CallTally().percentile_ms(50))
