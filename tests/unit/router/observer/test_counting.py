"""What a report adds to the traffic."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_router.observer.counting import count
from coalmine_router.observer.traffic_counts import TrafficCounts, VariantTraffic
from coalmine_router.table import Backend, Match, Route, RouteTable, Variant
from tests.doubles.reports import report

TABLE = RouteTable(
    7,
    (Backend("blue", ("b:1",)),),
    (
        Route(
            "digits",
            Match("digits"),
            (
                Variant("stable", "blue", weight_bp=9_000),
                Variant("canary", "blue", weight_bp=1_000),
            ),
        ),
    ),
)


def called(*calls: tuple[str, int], **fields: Any) -> pb.Report:
    """Return a report with a call to each variant, and how it ended."""
    made = report(**fields)
    del made.attempts[:]
    for variant, code in calls:
        made.attempts.add(variant=variant, status_code=code)
    return made


def counted(*reports: pb.Report) -> TrafficCounts:
    traffic = TrafficCounts()
    for each in reports:
        count(each, TABLE, traffic)
    return traffic


def of(traffic: TrafficCounts, variant: str, route: str = "digits") -> VariantTraffic:
    return traffic.variant(route, variant)


def fallback(*calls: tuple[str, int], **fields: Any) -> pb.Report:
    wanted = {"assignment": pb.ASSIGNMENT_FALLBACK, "chosen": "canary"}
    return called(*calls, **{**wanted, "chosen_by": pb.ASSIGNMENT_SPLIT, **fields})


def test_an_answer_is_its_variants_whatever_its_status() -> None:
    traffic = counted(
        called(("canary", 0), variant="canary"),
        called(("canary", 14), variant="canary", status_code=14),
    )

    assert of(traffic, "canary").by_code == {"OK": 1, "UNAVAILABLE": 1}
    assert of(traffic, "canary").by_split == 2
    assert not of(traffic, "canary").charged
    assert not of(traffic, "canary").fallbacks


def test_a_fallback_charges_the_failure_to_who_was_chosen_and_the_answer_to_who_gave_it() -> None:
    traffic = counted(fallback(("canary", 14), ("stable", 0)))

    canary, stable = of(traffic, "canary"), of(traffic, "stable")
    assert canary.by_code == canary.charged == canary.fallbacks == {"UNAVAILABLE": 1}
    assert stable.by_code == {"OK": 1}
    assert (sum(canary.latencies.counts), sum(stable.latencies.counts)) == (0, 1)


def test_a_fallback_that_fails_too_is_a_failure_of_both() -> None:
    traffic = counted(fallback(("canary", 4), ("stable", 14), status_code=14))

    assert of(traffic, "canary").by_code == {"DEADLINE_EXCEEDED": 1}
    assert of(traffic, "stable").by_code == {"UNAVAILABLE": 1}


def test_without_a_call_who_was_chosen_was_not_ready_and_is_charged_nothing() -> None:
    traffic = counted(fallback(("stable", 0)))

    assert of(traffic, "canary").fallbacks == {"not_ready": 1}
    assert of(traffic, "canary").requests == 0


def test_a_call_tried_again_at_another_address_is_charged_and_no_fallback() -> None:
    traffic = counted(called(("stable", 14), ("stable", 0)))

    assert of(traffic, "stable").by_code == {"UNAVAILABLE": 1, "OK": 1}
    assert of(traffic, "stable").charged == {"UNAVAILABLE": 1}
    assert not of(traffic, "stable").fallbacks


@pytest.mark.parametrize(
    ("assignment", "chosen_by", "by_split"),
    [
        (pb.ASSIGNMENT_SPLIT, pb.ASSIGNMENT_UNSPECIFIED, {"stable": 1}),
        (pb.ASSIGNMENT_STICKY, pb.ASSIGNMENT_UNSPECIFIED, {}),
        (pb.ASSIGNMENT_PINNED, pb.ASSIGNMENT_UNSPECIFIED, {}),
        (pb.ASSIGNMENT_FALLBACK, pb.ASSIGNMENT_SPLIT, {"canary": 1}),
        (pb.ASSIGNMENT_FALLBACK, pb.ASSIGNMENT_STICKY, {}),
        (pb.ASSIGNMENT_FALLBACK, pb.ASSIGNMENT_UNSPECIFIED, {}),
    ],
)
def test_the_split_is_of_what_was_drawn_be_it_that_another_answered(
    assignment: int, chosen_by: int, by_split: dict[str, int]
) -> None:
    chosen = "canary" if assignment == pb.ASSIGNMENT_FALLBACK else ""
    traffic = counted(
        called(("stable", 0), assignment=assignment, chosen=chosen, chosen_by=chosen_by)
    )

    found = Counter({name: of(traffic, name).by_split for name in ("stable", "canary")})
    assert +found == by_split


@pytest.mark.parametrize(
    ("route", "known"), [("digits", "digits"), ("made-up", ""), ("", "")], ids=str
)
def test_what_is_turned_away_is_counted_by_the_routes_that_there_are(
    route: str, known: str
) -> None:
    traffic = counted(called(route=route, variant="", status_code=8, turned_away="in_flight"))

    assert traffic.refusals_of(known) == {"in_flight": 1}
    assert of(traffic, "", known).by_code == {"RESOURCE_EXHAUSTED": 1}
    assert [key for key, _ in traffic.variants()] == [(known, "")]
    assert of(traffic, "", known).by_split == 0


def test_names_that_the_table_does_not_have_are_counted_together() -> None:
    traffic = counted(
        *(called(route=f"r{each}", variant="v") for each in range(50)),
        *(called((f"v{each}", 14), ("stable", 0)) for each in range(50)),
        *(fallback(("stable", 0), chosen=f"c{each}") for each in range(50)),
        *(called(route=f"r{each}", turned_away=f"t{each}") for each in range(50)),
    )

    assert {key for key, _ in traffic.variants()} == {("", ""), ("digits", "stable")}
    assert [route for route, _ in traffic.refusals()] == [""]


def test_of_a_route_that_lost_a_variant_its_reports_are_counted_apart() -> None:
    alone = replace(TABLE.routes[0], variants=(Variant("stable", "blue", weight_bp=10_000),))
    traffic = TrafficCounts()
    count(called(("canary", 0), variant="canary"), replace(TABLE, routes=(alone,)), traffic)

    assert [key for key, _ in traffic.variants()] == [("", "")]


def test_the_time_of_a_call_that_failed_is_not_that_of_who_answered_instead() -> None:
    fell_back = called(("canary", 4), ("stable", 0), variant="stable", chosen="canary")
    fell_back.duration_ns = 1_010_000_000
    fell_back.attempts[0].duration_ns = 1_000_000_000
    fell_back.attempts[1].duration_ns = 5_000_000
    assert of(counted(fell_back), "stable").latencies.sum_ns == 5_000_000
