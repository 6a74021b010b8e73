"""The status that operators see first: what is wrong, the verdicts, on 24 rows of 80 columns."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.status.status_brief import status_brief
from tests.doubles.control import (
    a_judged_status,
    a_judgement,
    a_route,
    a_status,
    made_well,
)
from tests.doubles.terminal_text import row, shown

ROWS, COLUMNS = 24, 80
LONG = "x" * 128


def told(status: pb.RouteStatus) -> str:
    return shown(status_brief(status), COLUMNS)


def words(text: str) -> str:
    """Return the text as one line, as if it had never been wrapped."""
    return " ".join(text.split())


def unwrapped(text: str) -> str:
    return "".join(text.split())


def usual(verdict: str = "fail") -> pb.RouteStatus:
    """Return stable, canary and a shadow, both judged, with audit and noise and some failures."""
    status = made_well(a_judged_status(verdict))
    status.route.audit_bp, status.route.noise_bp = 500, 100
    canary = a_judgement("inconclusive")
    canary.candidate = "canary"
    beside = a_judgement("fail")
    beside.reference = "canary"
    status.comparisons.extend([canary, beside])
    return status


def test_the_usual_route_fits_24_rows_of_80_columns_whatever_the_verdict() -> None:
    for verdict in ("pass", "fail", "inconclusive"):
        lines = told(usual(verdict)).splitlines()
        assert len(lines) <= ROWS
        assert max(map(len, lines)) <= COLUMNS


def test_the_first_line_is_the_health() -> None:
    assert told(usual()).splitlines()[0] == "SERVING"
    status = usual("pass")
    status.variants[0].ready, status.variants[0].reason = False, "a:1 is unreachable"
    first = told(status).splitlines()[0]
    assert first == "DOWN: stable is not ready: a:1 is unreachable"


def test_further_reasons_have_a_line_each_and_no_more_than_five_are_shown() -> None:
    status = usual()
    status.troubles.extend(f"trouble {number}" for number in range(8))
    lines = told(status).splitlines()
    assert lines[0] == "DEGRADED: trouble 0"
    assert lines[1:6] == [
        *(f"          trouble {number}" for number in range(1, 5)),
        "          and 3 more: --all shows them",
    ]


def test_each_candidate_against_stable_is_one_line_the_worst_first() -> None:
    text = told(usual())
    assert row(text, "FAIL  ")[:5] == ["FAIL", "int8", "9,875", "100", "5"]
    assert row(text, "INCONCLUSIVE  ") == [
        *["INCONCLUSIVE", "canary", "9,875", "100", "5", "63%", "of", "the", "way", "to", "PASS"]
    ]
    assert text.index("FAIL  ") < text.index("INCONCLUSIVE  ")


def test_why_a_candidate_fails_is_said_with_the_time_of_its_figures() -> None:
    why = "at 2026-09-21 14:13:20Z: 3.1 % of 9,975 requests mismatch, allowed 1 %"
    assert f"FAIL int8 against stable {why}" in words(told(usual()))
    assert "against stable at" not in words(told(usual("pass")))


def test_a_candidate_whose_evidence_goes_nowhere_says_why() -> None:
    status = usual("inconclusive")
    found = status.comparisons[0].verdict
    del found.gates[:]
    found.reason = "no two answers to compare: 7 failed"
    why = "INCONCLUSIVE int8 against stable no two answers to compare: 7 failed"
    assert why in words(told(status))


def test_other_pairs_are_counted_and_folded() -> None:
    assert "\n1 other pair: --all shows them\n" in told(usual())
    status = usual()
    status.comparisons.append(status.comparisons[2])
    assert "\n2 other pairs: --all shows them\n" in told(status)
    assert "int8 against canary" not in told(status)


def test_a_variant_that_is_parked_is_counted_and_folded() -> None:
    status = usual()
    status.route.variants.add(name="parked", backend="blue")
    status.route.variants.add(name="old", backend="blue")
    status.variants.add(name="parked", ready=True)
    text = told(status)
    assert "\n2 other variants, 1 of them not ready: --all shows them\n" in text
    assert "parked" not in text


def test_nothing_is_cut_off_of_names_that_fill_a_terminal() -> None:
    status = usual()
    for place, name in enumerate((LONG + "a", LONG + "b")):
        status.route.variants[place + 1].name = status.variants[place + 1].name = name
        status.comparisons[place].candidate = name
        status.route.variants[place + 1].model = name.upper()
    status.route.shadows[0].variant = LONG + "b"
    status.troubles.append(f"/{LONG}: nothing is kept: disk full")
    status.comparisons[0].verdict.gates[0].reason = f"worst output: {LONG}"
    status.comparisons[0].verdict.reason = f"worst output: {LONG}"
    text = told(status)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "…" not in text
    assert f"worstoutput:{LONG}" in unwrapped(text)
    assert f"/{LONG}:nothingiskept:diskfull" in unwrapped(text)
    assert text.count("X") == 2 * 128


def test_figures_in_millions_stay_whole_in_80_columns() -> None:
    status = usual()
    for variant in status.variants:
        variant.requests = variant.split_requests = 123_456_789
        variant.latency_p99_ms = 12_345.67
    for found in status.comparisons:
        found.match = found.mismatch = 123_456_789
    lines = told(status).splitlines()
    assert any("123,456,789" in line and "12,345.67" in line for line in lines)
    assert any(line.count("123,456,789") == 2 for line in lines)
    assert max(map(len, lines)) <= COLUMNS


def test_of_64_variants_those_that_matter_are_shown_and_the_others_counted() -> None:
    status = made_well(a_status())
    del status.comparisons[:]
    for number in range(64):
        name = f"v{number}"
        status.route.variants.add(name=name, backend="blue", weight_bp=number)
        status.variants.add(name=name, ready=True)
        found = a_judgement("fail" if number == 40 else "pass")
        found.candidate = name
        status.comparisons.append(found)
    lines = told(status).splitlines()
    assert len(lines) <= 27
    text = "\n".join(lines)
    assert row(text, "FAIL")[1] == "v40"
    assert "59 other pairs: --all shows them" in text
    assert "62 other variants, 1 of them not ready: --all shows them" in text
    assert [line.split()[0] for line in lines if "blue" in line][1:3] == ["v63", "v62"]


def test_what_a_terminal_would_obey_is_spelt_out_in_every_place() -> None:
    status = made_well(a_judged_status())
    evil = "\x1b[2J[bold]\n"
    status.troubles.append(evil)
    status.route.name = status.route.variants[2].model = evil
    status.comparisons[0].verdict.reason = evil
    status.variants[1].requests_by_status[evil] = 1
    text = told(status)
    assert "\x1b" not in text
    assert text.count(r"\x1b[2J[bold]\n") == 5


def test_a_route_without_traffic_candidates_or_copies_is_short() -> None:
    status = pb.RouteStatus(route=a_route(shadow=0), revision=1)
    text = told(status)
    assert text.startswith("DOWN: no proxy is connected to the control process\n")
    assert "against stable" not in text
    assert "copies  " not in text
    assert row(text, "stable") == ["stable", "blue", "v1", "100%", "-", "0", "0", "-", "-"]
