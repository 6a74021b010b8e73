"""What proxies tell of themselves, added up."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.totals import (
    OTHER,
    PROXIES_MAX,
    REASONS_MAX,
    CopyCounts,
    ReportTotals,
)

_numbers = itertools.count(1)


def told(
    totals: ReportTotals, proxy: str, offered: int, *, number: int = 0, **dropped: int
) -> bool:
    return totals.add_batch(
        pb.ReportBatch(
            proxy_id=proxy,
            offered_total=offered,
            dropped_total=dropped,
            number=number or next(_numbers),
        )
    )


def test_a_proxys_totals_count_once_however_often_they_are_told() -> None:
    totals = ReportTotals()
    told(totals, "a", 10, buffer_full=2)
    told(totals, "a", 10, buffer_full=2)
    told(totals, "a", 15, buffer_full=3, connection_lost=1)
    assert totals.offered == 15
    assert totals.dropped == {"buffer_full": 3, "connection_lost": 1}


def test_a_restarted_proxy_adds_to_what_it_told_before() -> None:
    totals = ReportTotals()
    told(totals, "before", 10, buffer_full=2)
    told(totals, "after", 3, buffer_full=1)
    assert (totals.offered, totals.dropped["buffer_full"]) == (13, 3)


def test_a_batch_that_came_before_is_not_new_and_adds_nothing() -> None:
    totals = ReportTotals()
    assert told(totals, "a", 10, number=3)
    assert not told(totals, "a", 20, number=3, buffer_full=1)
    assert not told(totals, "a", 20, number=2, buffer_full=1)
    assert told(totals, "b", 5, number=1)
    assert told(totals, "a", 12, number=5)
    assert totals.offered == 17
    assert not totals.dropped


def test_totals_that_shrink_take_nothing_back() -> None:
    totals = ReportTotals()
    told(totals, "a", 15, buffer_full=3)
    told(totals, "a", 10, buffer_full=2)
    told(totals, "a", 16, buffer_full=3)
    assert (totals.offered, totals.dropped["buffer_full"]) == (16, 3)


def test_the_proxies_remembered_are_bounded_and_the_silent_one_goes_first() -> None:
    totals = ReportTotals()
    told(totals, "silent", 1)
    for each in range(PROXIES_MAX * 2):
        told(totals, str(each), 1)
        told(totals, "talker", each)
    assert len(totals._proxies) == PROXIES_MAX
    assert "talker" in totals._proxies
    assert "silent" not in totals._proxies


def test_reasons_over_the_bound_are_counted_together() -> None:
    totals, copies = ReportTotals(), CopyCounts()
    told(totals, "a", 0, **{f"r{each}": 1 for each in range(100)})
    for each in range(100):
        told(totals, str(each), 0, **{f"s{each}": 1})
        copies.drop(f"t{each}")
    assert len(totals.dropped) == len(copies.dropped) == REASONS_MAX
    assert sum(copies.dropped.values()) == 100
    assert copies.dropped[OTHER] == 100 - REASONS_MAX + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))))
def test_the_sum_is_that_of_every_proxys_last_word(steps: list[tuple[str, int]]) -> None:
    totals, last = ReportTotals(), dict.fromkeys("abc", 0)
    for proxy, more in steps:
        last[proxy] += more
        told(totals, proxy, last[proxy], full=last[proxy] // 2)
    assert totals.offered == sum(last.values())
    assert totals.dropped["full"] == sum(each // 2 for each in last.values())


def test_what_went_to_the_control_process_before_is_not_counted_again() -> None:
    totals = ReportTotals()
    for number, (reports, sent) in enumerate(((60, 300), (40, 360)), 8):
        batch = pb.ReportBatch(
            proxy_id="a",
            number=number,
            offered_total=sent + reports + 20,
            sent_total=sent,
            dropped_total={"connection_lost": 20},
        )
        totals.add_batch(batch)
    assert totals.offered == 60 + 40 + 20
    assert totals.dropped == {"connection_lost": 20}


def test_totals_of_several_proxies_stay_within_what_status_can_hold() -> None:
    totals = ReportTotals()
    for proxy in "abc":
        told(totals, proxy, 2**64 - 1, buffer_full=2**64 - 1)
    pb.ReportBatch(
        proxy_id="status", offered_total=totals.offered, dropped_total=dict(totals.dropped)
    )
    assert totals.offered == totals.dropped["buffer_full"] == 2**63 - 1


def test_a_reason_is_cut_short_where_it_comes_in() -> None:
    totals = ReportTotals()
    told(totals, "a", 1, **{"r" * 100_000: 1})
    told(totals, "a", 2, **{"r" * 100_000: 2})
    assert totals.dropped == {"r" * 128: 2}
