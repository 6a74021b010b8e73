"""What operators read of a verdict: the word, why, and how far the evidence is."""

from typing import Any

import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.percents import interval_text, share_text
from coalmine_client.cli.routes.trials import trials_view
from coalmine_client.cli.status.status_view import status_view
from coalmine_client.cli.status.verdict_wait import progress_lines, ruling_on
from coalmine_client.cli.verdict_view import comparing_text, dated_reason, progress_bar
from tests.doubles.control import (
    AT_NS,
    a_judged_status,
    a_judgement,
    a_list_of_trials,
    a_status,
    made_well,
)
from tests.doubles.terminal_text import row, shown


def told(verdict: str = "fail") -> Any:
    return shown(status_view(a_judged_status(verdict)))


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ("fail", "at 2026-09-21 14:13:20Z: 3.1 % of 9,975 requests mismatch, allowed 1 %"),
        ("pass", "at 2026-09-21 14:13:20Z: enough matched"),
        ("inconclusive", "not enough evidence yet"),
    ],
)
def test_the_verdict_comes_before_all_figures_with_its_reason(verdict: str, why: str) -> None:
    text = shown(status_view(a_judged_status(verdict)), width=200)

    assert f"digits   {verdict.upper()}   model digits" in text
    assert text.index(f"{verdict.upper()}  int8 against stable  {why}") < text.index("variant ")


def test_a_verdict_tells_its_trial_the_versions_and_the_request_that_tipped_it() -> None:
    text = " ".join(told().split())

    assert "trial 3 since 2026-09-21 14:13:20Z · begun by a change of candidate version" in text
    assert "versions 2 against 1" in text
    assert "decided 2026-09-21 14:13:20Z by trace 0af7651916cd43dd8448eb211c80319c" in text
    assert "decided" not in told("inconclusive")


def test_the_gates_tell_how_far_the_evidence_is() -> None:
    text = told("inconclusive")

    assert row(text, "  mismatch") == [
        *["mismatch", "open", "██████░░░░", "63%", "of", "the", "way", "to", "PASS", "9,975"]
    ]
    assert row(text, "  errors")[2:9] == ["██░░░░░░░░", "25%", "of", "the", "way", "to", "FAIL"]
    assert "5 of 9,980 failed" in text
    assert "0% of the way to an alarm" in text


@pytest.mark.parametrize(
    ("gate", "way"),
    [
        (pb.Gate(finding="open", log_pass=-3, log_fail=-1, log_needed=3), "0% of the way to FAIL"),
        (pb.Gate(finding="open", log_pass=9, log_needed=3), "99% of the way to PASS"),
        (pb.Gate(finding="open", log_pass=1), ""),
        (pb.Gate(finding="pass", log_pass=4, log_needed=3), ""),
    ],
)
def test_an_open_gate_is_never_shown_as_decided(gate: pb.Gate, way: str) -> None:
    assert progress_bar(gate).endswith(way)
    assert bool(progress_bar(gate)) is bool(way)


def test_rates_come_with_their_interval_and_noise_beside_raw() -> None:
    text = told()

    assert row(text, "  in any output")[3:] == ["3.10%", "1.90", "to", "4.81%"]
    assert row(text, "  scores") == [
        *["scores", "close", "3.10%", "1.90", "to", "4.80%"],
        *["3.00%", "0.10%", "-0.50", "to", "0.90%"],
    ]
    assert row(text, "  label") == ["label", "argmax", "-", "-", "-"]


def test_without_noise_there_is_no_column_for_it() -> None:
    status = a_judged_status()
    status.comparisons[0].noise_pairs = 0

    assert "noise" not in shown(status_view(status))


def test_segments_are_shown_the_worst_first_and_ten_at_most() -> None:
    text = told()
    names = [line.split()[0] for line in text.splitlines() if "tenant-" in line]

    assert names == [f"tenant-{each}" for each in range(11, 1, -1)]
    assert "and 2 more" in text


def test_a_verdict_fits_a_terminal_of_a_hundred_columns() -> None:
    status = a_judged_status()
    status.comparisons[0].verdict.gates[1].reason = "word " * 40
    assert max(map(len, shown(status_view(status)).splitlines())) <= 100


def test_a_router_that_judges_nothing_shows_no_verdict() -> None:
    text = shown(status_view(a_status()))

    assert "INCONCLUSIVE" not in text
    assert "trial" not in text


def decided(*gates: pb.Gate, verdict: str, reason: str = "", at_ns: int = 0) -> str:
    made = pb.Verdict(verdict=verdict, gates=gates, at_ns=at_ns)
    made.reason = reason or "; ".join(each.reason for each in gates if each.finding != "open")
    return dated_reason(made)


def test_a_reason_of_what_was_decided_at_different_times_says_each() -> None:
    mismatch = pb.Gate(finding="pass", reason="6 % of 100 mismatch", at_ns=AT_NS)
    errors = pb.Gate(finding="pass", reason="0 % failed", at_ns=AT_NS + 61 * 10**9)

    assert decided(mismatch, errors, verdict="pass", at_ns=errors.at_ns) == (
        "at 2026-09-21 14:13:20Z: 6 % of 100 mismatch; at 2026-09-21 14:14:21Z: 0 % failed"
    )
    errors.at_ns = AT_NS
    assert decided(mismatch, errors, verdict="pass", at_ns=AT_NS) == (
        "at 2026-09-21 14:13:20Z: 6 % of 100 mismatch; 0 % failed"
    )


def test_a_reason_with_figures_of_now_says_no_time() -> None:
    gate = pb.Gate(finding="open", reason="6 % of 100 mismatch")

    assert decided(gate, verdict="inconclusive", reason="not decided yet: 6 %") == (
        "not decided yet: 6 %"
    )


def test_an_alarm_says_when_it_was_raised_though_the_word_was_the_same_before() -> None:
    gate = pb.Gate(gate="split", finding="alarm", reason="9 of 10 requests", at_ns=AT_NS)

    said = decided(gate, verdict="inconclusive")
    assert said == "at 2026-09-21 14:13:20Z: 9 of 10 requests"


def test_what_an_older_router_decided_is_of_the_time_of_its_verdict() -> None:
    gate = pb.Gate(finding="fail", reason="too many")

    assert decided(gate, verdict="fail", at_ns=AT_NS) == "at 2026-09-21 14:13:20Z: too many"
    assert decided(verdict="fail", reason="bad", at_ns=AT_NS) == "at 2026-09-21 14:13:20Z: bad"


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (pb.Comparing(share_bp=10_000, compared=9, waiting=3), ""),
        (pb.Comparing(), ""),
        (
            pb.Comparing(share_bp=2_500, left_out=1_234, waiting=812, waiting_bytes=3 * 2**20),
            "comparing 1 in 4: 812 wait (3.0 MiB), 1,234 left out so far, 0 processes compare",
        ),
        (
            pb.Comparing(waiting=8, processes=2),
            "comparing none: 8 wait (0.0 MiB), 0 left out so far, 2 processes compare",
        ),
        (
            pb.Comparing(share_bp=10_000, left_out=7),
            "comparing all: 0 wait (0.0 MiB), 7 left out so far",
        ),
    ],
)
def test_a_router_that_falls_behind_says_how_much_it_compares(of: pb.Comparing, words: str) -> None:
    assert comparing_text(of) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00%"), (1e-7, "<0.01%"), (-1e-7, "-<0.01%"), (0.99999, ">99.99%"), (1.0, "100.00%")],
)
def test_a_share_is_never_rounded_to_none_or_all(value: float, text: str) -> None:
    assert share_text(value) == text


def test_an_interval_is_rounded_outwards() -> None:
    assert interval_text(0.01999, 0.02001) == "1.99 to 2.01%"
    assert interval_text(0.14, 0.14) == "14.00 to 14.00%"
    assert interval_text(-0.00001, 0.0) == "-0.01 to 0.00%"


# ---------------------------------------------------------------- waiting for it


def against(reference: str, verdict: str) -> pb.ComparisonCounts:
    found = a_judgement(verdict)
    found.reference = reference
    return found


@pytest.mark.parametrize(
    ("verdicts", "candidate", "verdict"),
    [
        (["pass", "pass"], "int8", "pass"),
        (["pass", "inconclusive"], "int8", "inconclusive"),
        (["inconclusive", "fail"], "int8", "fail"),
        ([], "int8", "inconclusive"),
        (["fail"], "canary", "inconclusive"),
    ],
)
def test_a_candidate_passes_where_all_that_was_found_of_it_does(
    verdicts: list[str], candidate: str, verdict: str
) -> None:
    status = a_status()
    del status.comparisons[:]
    status.comparisons.extend(against("stable", each) for each in verdicts)

    assert ruling_on(status, candidate).verdict == verdict


def test_a_shadow_beside_a_bad_canary_is_not_held_against_it() -> None:
    status = a_status()
    del status.comparisons[:]
    status.comparisons.extend([against("stable", "pass"), against("canary", "fail")])

    assert ruling_on(status, "int8").verdict == "pass"


def test_what_is_waited_for_is_told_a_line_a_candidate() -> None:
    status = made_well(a_judged_status("inconclusive"))
    (told,) = progress_lines(status, "int8")

    assert told[0] == ("INCONCLUSIVE", "bold yellow")
    assert "mismatch ██████░░░░ 63% of the way to PASS · errors" in str(told[2])
    assert progress_lines(status, "canary") == [["waiting for the first comparison"]]


def test_who_waits_sees_what_is_wrong_meanwhile() -> None:
    first, second = progress_lines(a_judged_status("inconclusive"), "int8")

    assert "DEGRADED: 1 of 2 proxies don't serve revision 7" in str(first)
    assert second[0] == ("INCONCLUSIVE", "bold yellow")


# ---------------------------------------------------------------- trials


def test_trials_tell_versions_times_why_and_what_came_out() -> None:
    text = shown(trials_view(a_list_of_trials()), width=200)

    assert row(text, "    3")[:7] == ["3", "int8", "against", "stable", "2", "against", "1"]
    assert row(text, "    3")[-6:] == ["version", "9,875", "100", "5", "3.10%", "FAIL"]
    assert row(text, "    2")[9:] == [
        *["2026-09-21", "14:13:20Z", "rules", "9,875", "100", "5", "3.10%", "PASS"]
    ]


def test_no_figure_of_a_trial_is_cut_off_on_a_narrow_terminal() -> None:
    text = shown(trials_view(a_list_of_trials()), width=80)

    assert "…" not in text
    assert text.count("9,875") == text.count("3.10%") == 2


def test_a_route_that_was_never_compared_has_no_trials() -> None:
    assert shown(trials_view(pb.ListTrialsResponse())) == "no trials\n"


# ---------------------------------------------------------------- addresses


def with_addresses() -> pb.RouteStatus:
    status = a_judged_status()
    found = status.comparisons[0]
    for address, ready, compared, mismatch, odd in (
        *(("10.0.0.5:1", True, 40, 0, False), ("10.0.0.6:1", True, 0, 0, False)),
        *(("10.0.0.7:1", True, 39, 39, True), ("10.0.0.4:1", False, 7, 1, False)),
    ):
        found.candidate_addresses.add(
            address=address, ready=ready, compared=compared, mismatch=mismatch, stands_out=odd
        )
        found.candidate_addresses[-1].seen_ns = AT_NS if compared else 0
    found.reference_addresses.add(address="10.0.0.1:1", ready=True, compared=79, seen_ns=AT_NS)
    found.addresses_let_go = 3
    return status


def test_addresses_are_told_of_how_many_and_who_stands_out_comes_first() -> None:
    text = shown(status_view(with_addresses()))
    said = "addresses compared: int8 2 of 3 ready · stable 1 of 1 ready · 3 more forgotten"

    assert said in text
    rows = [line.split()[1:6] for line in text.splitlines() if line.startswith("  int8 ")]
    assert rows == [
        ["10.0.0.7:1", "yes", "39", "39", "0"],
        ["10.0.0.6:1", "yes", "0", "0", "0"],
        ["10.0.0.4:1", "-", "7", "1", "0"],
        ["10.0.0.5:1", "yes", "40", "0", "0"],
    ]
    assert "never" in text


def test_one_address_a_side_is_told_in_a_line() -> None:
    status = with_addresses()
    del status.comparisons[0].candidate_addresses[1:]
    text = shown(status_view(status))

    assert "addresses compared: int8 1 of 1 ready · stable 1 of 1 ready" in text
    assert not any(line.startswith("  int8 ") for line in text.splitlines())


def test_where_nobody_knows_who_is_ready_those_compared_are_counted() -> None:
    status = with_addresses()
    for each in status.comparisons[0].candidate_addresses:
        each.ready = False
    assert "addresses compared: int8 3 · stable 1 of 1 ready" in shown(status_view(status))


def test_of_many_addresses_ten_are_shown() -> None:
    status = with_addresses()
    for number in range(20):
        status.comparisons[0].candidate_addresses.add(address=f"10.0.4.{number}:1", compared=1)
    text = shown(status_view(status))

    assert sum(line.startswith("  int8 ") for line in text.splitlines()) == 10
    assert "and 14 more" in text


def test_a_gate_that_passed_without_a_word_leaves_the_others_their_time() -> None:
    mismatch = pb.Gate(finding="pass", reason="6 % of 100 mismatch", at_ns=AT_NS)
    addresses = pb.Gate(gate="addresses", finding="pass", at_ns=AT_NS - 10**9)
    assert decided(mismatch, addresses, verdict="pass", reason="6 % of 100 mismatch") == (
        "at 2026-09-21 14:13:20Z: 6 % of 100 mismatch"
    )
