"""Answers kept back: until the hold is over, or half of the caller's time has gone."""

import asyncio

import pytest

from coalmine.process.answer_gate import AnswerGate


async def test_an_answer_waits_until_the_hold_is_over() -> None:
    hold = AnswerGate()
    hold.begin()
    waiting = asyncio.create_task(hold.wait(None))
    await asyncio.sleep(0)
    assert not waiting.done()
    hold.end()
    async with asyncio.timeout(5):
        await waiting
    assert not hold.is_on


async def test_an_answer_that_comes_when_the_hold_is_over_does_not_wait() -> None:
    hold = AnswerGate()
    hold.begin()
    hold.end()
    waiting = asyncio.ensure_future(hold.wait(None))
    await asyncio.sleep(0)
    assert waiting.done()


@pytest.mark.parametrize("remaining_s", [0.02, 0.0, -1.0])
async def test_an_answer_is_not_kept_until_it_is_of_no_use(remaining_s: float) -> None:
    hold = AnswerGate()
    hold.begin()
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.timeout(5):
        await hold.wait(remaining_s)
    assert loop.time() - began_s >= max(0.0, remaining_s) / 2 - 0.002
    assert hold.is_on


async def test_a_caller_that_goes_away_while_its_answer_is_kept_is_let_go() -> None:
    hold = AnswerGate()
    hold.begin()
    waiting = asyncio.create_task(hold.wait(None))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
