"""How much counts grew within the last minute."""

from collections import Counter
from collections.abc import Hashable

from coalmine_router.observer.recent import INTERVAL_S, RecentGrowth

SECOND_NS = 10**9


class Counted:
    """Counts that are noted each few seconds."""

    def __init__(self, **counts: int) -> None:
        self.counts: Counter[Hashable] = Counter(counts)
        self.now_ns = 5 * SECOND_NS
        self.recent = RecentGrowth(lambda: Counter(self.counts), self.now_ns)

    def pass_by(self, seconds: float) -> None:
        for _ in range(round(seconds / INTERVAL_S)):
            self.now_ns += round(INTERVAL_S * SECOND_NS)
            self.recent.note(self.now_ns)

    def grown(self, key: str) -> int:
        return self.recent.growth(key, self.counts[key])


def test_what_was_counted_before_is_not_recent() -> None:
    assert Counted(errors=7).grown("errors") == 0


def test_what_is_counted_is_recent_for_a_minute() -> None:
    counted = Counted(errors=7)
    counted.counts["errors"] += 3
    assert counted.grown("errors") == 3
    counted.pass_by(60)
    assert counted.grown("errors") == 3
    counted.pass_by(INTERVAL_S)
    assert counted.grown("errors") == 0


def test_a_count_that_is_new_has_grown_from_nothing() -> None:
    counted = Counted()
    counted.pass_by(300)
    counted.counts["new"] = 2
    assert counted.grown("new") == 2


def test_no_more_is_remembered_than_a_minute() -> None:
    counted = Counted()
    counted.pass_by(3_600)
    assert len(counted.recent._noted) == 60 / INTERVAL_S + 1


def test_what_grew_while_nothing_was_noted_may_be_recent() -> None:
    counted = Counted(errors=1)
    counted.counts["errors"] = 5
    counted.now_ns += 600 * SECOND_NS
    counted.recent.note(counted.now_ns)
    assert counted.grown("errors") == 4
    counted.pass_by(60)
    assert counted.grown("errors") == 0
