import asyncio
import random
from collections.abc import Sequence

from structlog.testing import capture_logs

from coalmine_router.backends.dns_watch import DnsWatch
from coalmine_router.backends.intervals import Intervals
from coalmine_router.backends.resolve import HalfAnswered, LookupFailed
from coalmine_router.backends.targets import Lookup

AT_ONCE = Intervals(lookup_every_s=0.0, lookup_pause_s=0.0)
BOTH = ["1.1.1.1", "::1"]
NO_V6 = HalfAnswered(["2.2.2.2"], 6, "IPv6: the DNS server does not answer")
NO_V4 = HalfAnswered(["::2"], 4, "IPv4: the DNS server does not answer")


class Script:
    """Answers lookups one after the other; the last answer never comes."""

    def __init__(self, answers: Sequence[list[str] | LookupFailed]) -> None:
        self._answers = list(answers)
        self.is_over = asyncio.Event()

    async def look_up(self, lookup: Lookup) -> list[str]:
        if not self._answers:
            self.is_over.set()
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, LookupFailed):
            raise answer
        return answer


async def take(*answers: list[str] | LookupFailed) -> list[list[str] | str]:
    """Return what is told of a name that is looked up with these answers."""
    heard: list[list[str] | str] = []
    script = Script(answers)
    watch = DnsWatch(
        Lookup("model", 80),
        script,
        lambda _, found: heard.append(found),
        rng=random.Random(7),
        intervals=AT_ONCE,
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch.run())
        await script.is_over.wait()
        running.cancel()
    return heard


async def test_the_addresses_of_a_version_that_nobody_spoke_of_stay() -> None:
    assert await take(BOTH, NO_V6) == [BOTH, ["2.2.2.2", "::1"]]
    assert await take(BOTH, NO_V4) == [BOTH, ["::2", "1.1.1.1"]]


async def test_they_stay_for_as_long_as_nobody_speaks_of_them_and_go_when_told_so() -> None:
    heard = await take(BOTH, NO_V6, LookupFailed("none"), NO_V6, ["3.3.3.3"], NO_V6)
    stays = ["2.2.2.2", "::1"]
    assert heard == [BOTH, stays, "none", stays, ["3.3.3.3"], ["2.2.2.2"]]


async def test_where_nothing_is_known_yet_half_an_answer_is_used() -> None:
    assert await take(NO_V6) == [["2.2.2.2"]]


async def test_half_an_answer_is_logged_once_and_again_after_a_whole_one() -> None:
    with capture_logs() as logged:
        await take(NO_V6, NO_V6, NO_V4, NO_V4, BOTH, NO_V4)
    assert [line["why"] for line in logged] == [str(NO_V6), str(NO_V4), str(NO_V4)]
    assert {line["event"] for line in logged} == {"lookup_half_answered"}
