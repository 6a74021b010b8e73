import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from coalmine.clock import SystemClock
from coalmine_client.client import Answer
from coalmine_demo.account import OK, TrafficExchange
from coalmine_demo.demo_failure import StepFailed
from coalmine_demo.ledger import Ledger
from coalmine_demo.traffic import IN_FLIGHT_MAX, MALFORMED, Traffic
from tests.doubles.digits import exchange, heldout, logits_of

PIXELS = heldout().pixels
LABEL = np.array([[2]])


class Backend:
    """Answers like a router, or raises; counts how many requests wait at once."""

    def __init__(self, raises: Exception | None = None, **outputs: Any) -> None:
        self.images: list[int] = []
        self.waiting = 0
        self.waiting_most = 0
        self.open = asyncio.Event()
        self.open.set()
        self._raises = raises
        self._outputs = outputs or {"logits": logits_of(2)[None], "label": LABEL}

    async def infer(self, model: str, inputs: Mapping[str, Any], *, timeout_s: float) -> Answer:
        self.images.append(int(inputs["pixels"][0, 0]) // 64)
        self.waiting += 1
        self.waiting_most = max(self.waiting, self.waiting_most)
        await self.open.wait()
        self.waiting -= 1
        if self._raises:
            raise self._raises
        return Answer(model, "1", "", self._outputs, "canary", 7, ())


async def send_until(backend: Backend, count: int) -> list[TrafficExchange]:
    """Send until `count` exchanges are there."""
    seen: list[TrafficExchange] = []
    enough = asyncio.Event()

    def record(one: TrafficExchange) -> None:
        seen.append(one)
        if len(seen) >= count:
            enough.set()

    await Traffic(backend, PIXELS, record, rate_per_s=1e6, clock=SystemClock()).send_until(enough)
    return seen


async def test_images_are_sent_in_turn_over_and_over() -> None:
    backend = Backend()
    await send_until(backend, 6)
    assert backend.images[:6] == [0, 1, 2, 3, 0, 1]


async def test_an_exchange_holds_the_answer_and_who_gave_it() -> None:
    first, *_ = await send_until(Backend(), 1)
    assert (first.status, first.variant, first.revision, first.label) == (OK, "canary", 7, 2)
    np.testing.assert_array_equal(first.logits, logits_of(2))
    assert first.latency_ms > 0


async def test_an_error_is_an_exchange_too_with_what_its_metadata_says() -> None:
    trailing = grpc.aio.Metadata(("x-coalmine-variant", "stable"), ("x-coalmine-revision", "3"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing)
    first, *_ = await send_until(Backend(raises=error), 1)
    assert (first.status, first.variant, first.revision) == ("UNAVAILABLE", "stable", 3)


async def test_an_error_that_nobody_signed_is_of_no_variant() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()
    )
    first, *_ = await send_until(Backend(raises=error), 1)
    assert (first.status, first.variant, first.revision) == ("UNAVAILABLE", "", 0)


@pytest.mark.parametrize(
    "outputs",
    [{"label": LABEL}, {"logits": np.empty((0, 10)), "label": LABEL}],
    ids=["an output is missing", "no rows"],
)
async def test_an_answer_that_does_not_fit_is_malformed(outputs: dict[str, Any]) -> None:
    first, *_ = await send_until(Backend(**outputs), 1)
    assert first.status == MALFORMED


async def test_no_more_than_the_limit_waits_for_an_answer() -> None:
    backend = Backend()
    backend.open.clear()
    async with asyncio.TaskGroup() as group:
        flowing = group.create_task(send_until(backend, 100))
        while backend.waiting < IN_FLIGHT_MAX:
            await asyncio.sleep(0)
        backend.open.set()
        await flowing
    assert backend.waiting_most == IN_FLIGHT_MAX


# ---------------------------------------------------------------- the ledger


async def test_the_ledger_waits_for_answers_of_one_revision() -> None:
    ledger = Ledger()
    async with asyncio.TaskGroup() as group:
        reached = group.create_task(ledger.wait_for(2, 2))
        for revision in (1, 2, 1):
            ledger.record(exchange("stable", revision=revision))
            await asyncio.sleep(0)
        assert not reached.done()
        ledger.record(exchange("stable", revision=2))
        await reached
    assert len(ledger.exchanges) == 4


async def test_the_ledger_gives_up_in_one_line_that_says_what_came() -> None:
    ledger = Ledger(patience_s=0.01)
    ledger.record(exchange("stable", revision=1))
    with pytest.raises(StepFailed, match=r"revision 2 did not answer 5 requests .* 1: 1"):
        await ledger.wait_for(2, 5)


def test_the_ledger_is_bounded() -> None:
    ledger = Ledger(exchanges_max=2)
    for _ in range(2):
        ledger.record(exchange("stable"))
    with pytest.raises(OverflowError):
        ledger.record(exchange("stable"))
