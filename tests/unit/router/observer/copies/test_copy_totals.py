"""What was counted of queues, also once they are gone."""

from coalmine_router.observer.copies.copy_totals import CopyTotals
from coalmine_router.observer.totals import CopyCounts, CopyQueueKey


def key(name: str) -> CopyQueueKey:
    return CopyQueueKey("digits", "shadow", name)


def test_a_queue_that_comes_back_counts_on() -> None:
    ledger = CopyTotals()
    ledger.begin(key("canary")).offered += 3
    ledger.end(key("canary"))
    ledger.begin(key("canary")).offered += 1
    assert dict(ledger.entries())[key("canary")].offered == 4


def test_queues_long_gone_are_added_up_and_none_of_their_counts_is_lost() -> None:
    ledger = CopyTotals(gone_max=2)
    for number in range(10):
        totals = ledger.begin(key(str(number)))
        totals.offered, totals.answered = 2, 1
        totals.drop("queue_full")
        ledger.end(key(str(number)))
    entries = dict(ledger.entries())
    assert set(entries) == {key("8"), key("9"), CopyQueueKey("", "shadow", "")}
    assert sum(each.offered for each in entries.values()) == 20
    assert entries[CopyQueueKey("", "shadow", "")].dropped == {"queue_full": 8}


def test_a_comparison_of_a_queue_long_gone_is_counted_with_its_role() -> None:
    ledger = CopyTotals(gone_max=0)
    ledger.begin(key("canary"))
    ledger.end(key("canary"))
    ledger.of(key("canary")).compared += 1
    assert ledger.nameless("shadow").compared == 1
    assert ledger.nameless("audit").compared == 0


def test_a_queue_that_is_gone_has_no_open_circuit() -> None:
    ledger = CopyTotals()
    ledger.begin(key("canary")).circuit = "open"
    ledger.end(key("canary"))
    assert ledger.of(key("canary")).circuit == "closed"


def test_adding_counts_leaves_out_none() -> None:
    one, other = CopyCounts(), CopyCounts(1, 2, 3, 4, 5, 6, 7, 8)
    other.drop("stopping")
    one.add(other)
    one.add(other)
    counted = (one.offered, one.waiting, one.under_way, one.timed_out, one.failed, one.answered)
    assert counted == (2, 4, 6, 8, 10, 12)
    assert (one.compared, one.uncompared, dict(one.dropped)) == (14, 16, {"stopping": 2})
