"""What comparing warns of: told once, counted always, and of sensitive routes without values."""

from typing import Literal

import pytest
from structlog.testing import capture_logs

from coalmine_router.config.copies_section import Capture
from coalmine_router.observer.comparison.result import RuleWarning
from coalmine_router.observer.warned import WarningCounts

UNKNOWN = RuleWarning("unknown_output", "logitz")


def failed(output: str = "text") -> RuleWarning:
    return RuleWarning("rule_failed", output, "ValueError: invalid literal: 'hunter2'")


def test_a_warning_is_logged_once_and_counted_each_time() -> None:
    counts = WarningCounts()
    with capture_logs() as logs:
        for _ in range(3):
            counts.note("digits", [UNKNOWN, failed()], "full")
        counts.note("letters", [UNKNOWN], "full")
    assert [(each["route"], each["warning"], each["output"]) for each in logs] == [
        ("digits", "unknown_output", "logitz"),
        ("digits", "rule_failed", "text"),
        ("letters", "unknown_output", "logitz"),
    ]
    assert counts.totals() == {
        ("digits", "unknown_output"): 3,
        ("digits", "rule_failed"): 3,
        ("letters", "unknown_output"): 1,
    }


@pytest.mark.parametrize(
    ("capture", "told"),
    [
        ("full", "ValueError: invalid literal: 'hunter2'"),
        ("shapes", "ValueError"),
        ("none", "ValueError"),
    ],
)
def test_what_a_rule_failed_at_is_logged_where_values_may_be(capture: Capture, told: str) -> None:
    with capture_logs() as logs:
        WarningCounts().note("digits", [failed()], capture)
    assert [each["told"] for each in logs] == [told]


def test_what_there_is_nothing_to_say_of_is_left_out_of_the_log() -> None:
    with capture_logs() as logs:
        WarningCounts().note(
            "digits", [UNKNOWN, RuleWarning("rule_failed", "", "KeyError")], "full"
        )
    assert [each.keys() - {"event", "log_level", "route", "warning"} for each in logs] == [
        {"output"},
        {"told"},
    ]


def test_names_that_a_model_invents_do_not_grow_the_counts() -> None:
    counts = WarningCounts()
    what: Literal["unknown_output"] = "unknown_output"
    with capture_logs() as logs:
        for n in range(2_000):
            counts.note("digits", [RuleWarning(what, f"output-{n}")], "full")
    assert len(logs) == 1_024
    totals = counts.totals()
    assert totals == {("digits", what): 1_024, ("(other)", "(other)"): 976}
