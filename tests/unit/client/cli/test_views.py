"""What operators read: every figure is there, and fits a terminal of a hundred columns."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.infer.bulk import CallTally
from coalmine_client.cli.infer.infer_view import answer_view, tally_view
from coalmine_client.cli.route_health import RouteHealth
from coalmine_client.cli.routes.history import history_view, moves_text
from coalmine_client.cli.routes.routes import routes_view
from coalmine_client.cli.routes.weights import change_view
from coalmine_client.cli.status.status_view import status_view
from coalmine_client.client import Answer
from tests.doubles.control import (
    a_change,
    a_history,
    a_route,
    a_status,
)
from tests.doubles.terminal_text import row, shown

# ---------------------------------------------------------------- status


def test_the_status_of_a_variant_tells_asked_and_got_share_errors_and_latency() -> None:
    text = shown(status_view(a_status()))

    assert row(text, "stable") == [
        "stable",
        "blue",
        "v1",
        "100%",
        "90.01%",
        "9,001",
        "0",
        "1.24",
        "3.41",
        "yes",
    ]
    assert row(text, "canary ")[:8] == [
        "canary",
        "blue",
        "v2",
        "0%",
        "9.99%",
        "999",
        "3",
        "(0.30%)",
    ]


def test_the_status_says_why_a_variant_is_not_ready_and_what_it_answered() -> None:
    text = shown(status_view(a_status()))

    assert "canary is not ready: model 'digits' version 2 is loading" in text
    assert "canary answered UNAVAILABLE 2, INTERNAL 1" in text
    assert "stable answered" not in text


def copy_rows(status: pb.RouteStatus) -> list[list[str]]:
    """Return the words of each line about copies."""
    text = shown(status_view(status))
    block = text[text.index("copies for ") :].split("\n\n")[0]
    return [line.split() for line in block.splitlines()[1:]]


def test_the_status_counts_copies_so_that_they_add_up() -> None:
    first, *troubles = copy_rows(a_status())

    assert first == [
        *["int8", "shadow", "100%", "10,000", "6", "9,984", "9,979", "5", "9,975", "10"],
    ]
    assert 10_000 == 6 + 9_984 + 10
    assert [" ".join(each) for each in troubles] == [
        "int8 (shadow): dropped queue_full 7, too_large 3",
        "int8 (shadow): 2 of those that failed timed out",
        "int8 (shadow): 9 of those sent were not compared",
    ]


def test_a_circuit_that_is_open_is_said() -> None:
    status = a_status()
    status.shadows[0].circuit = "open"

    assert "int8 (shadow): no calls are made: they failed too often" in shown(status_view(status))


def test_audit_and_noise_have_a_row_before_there_is_a_copy() -> None:
    route = a_route(stable=9_000, canary=1_000, shadow=0)
    route.audit_bp, route.noise_bp = 500, 100

    assert [each[:3] for each in copy_rows(pb.RouteStatus(route=route))] == [
        ["stable", "audit", "5%"],
        ["canary", "audit", "5%"],
        ["stable", "noise", "1%"],
    ]


def test_a_stable_without_weight_still_has_its_row_of_audits() -> None:
    route = a_route(stable=0, canary=10_000, shadow=0)
    route.audit_bp = 500

    assert [each[:3] for each in copy_rows(pb.RouteStatus(route=route))] == [
        ["stable", "audit", "5%"]
    ]


def test_the_status_counts_comparisons_in_all_and_by_output() -> None:
    text = shown(status_view(a_status()))

    assert row(text, "int8 against stable")[3:] == ["9,875", "100", "5", "10", "1.00%"]
    assert row(text.replace("                     logits", "logits"), "logits") == [
        "logits",
        "9,875",
        "100",
        "1.00%",
        "0.0312",
    ]


def test_the_status_names_the_proxies_that_serve_another_revision() -> None:
    text = shown(status_view(a_status()))

    assert "proxies   1 of 2 serve revision 7" in text
    assert "p-4712 serves revision 6, refused: no such backend" in text
    assert "p-4711 serves" not in text


def test_the_status_names_the_proxies_that_began_without_the_control_process() -> None:
    status = a_status()
    status.proxies[0].saved_ns = 34 * 10**9
    status.proxies[1].saved_ns = 10**8
    text = shown(status_view(status))
    assert "p-4711 began by its saved table, for 34 s, until 2026-09-21 14:13:20Z" in text
    assert "p-4712 began" not in text


def test_the_status_names_the_addresses_that_a_proxy_can_not_call() -> None:
    text = shown(status_view(a_status()))

    line = "canary: 1 of 2 addresses on proxy p-4711: 127.0.0.1:8001 does not answer"
    assert line in text
    assert "stable: 2 of 2" not in text


def test_a_variant_without_an_address_is_shown_as_out_of_reach() -> None:
    reach = [pb.VariantReach(route="digits", variant="canary")]
    status = pb.RouteStatus(route=a_route(), proxies=[pb.ProxyStatus(proxy_id="p", reach=reach)])

    assert "canary: 0 of 0 addresses on proxy p\n" in shown(status_view(status))


def test_the_status_counts_what_fell_back_and_what_was_turned_away() -> None:
    text = shown(status_view(a_status()))

    assert "canary: 42 fell back (not_ready 40, UNAVAILABLE 2)" in text
    assert "stable: " not in text
    assert "12 turned away by the router (in_flight 12)" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"match_model": "digits"}, "model digits"),
        ({"match_default": True}, "any other model"),
        ({"match_service": "a.B"}, "service a.B/*"),
        ({"match_service": "a.B", "match_method": "C"}, "service a.B/C"),
        ({"sticky_parameter": "user"}, "sticky by parameter user"),
        ({"sticky_id": True}, "sticky by id"),
        ({"sticky_metadata": "x-user"}, "sticky by x-user"),
        ({"fallback": True}, "fallback on"),
        ({"audit_bp": 500}, "audit 5%"),
        ({"noise_bp": 150}, "noise 1.5%"),
        ({"stateful": True}, "stateful: never copied"),
        ({"limits": pb.Limits(in_flight_max=1_000)}, "1,000 in flight at most"),
        ({"limits": pb.Limits(bytes_max=3 * 2**19)}, "1.5 MiB in flight at most"),
    ],
)
def test_the_head_says_what_a_route_matches_and_how_it_treats_its_requests(
    fields: Any, words: Any
) -> None:
    route = pb.Route(name="digits", **fields)

    assert words in shown(status_view(pb.RouteStatus(route=route)))
    row = shown(routes_view(pb.ListRoutesResponse(routes=[route]), {}))
    place = words.removeprefix("sticky by ")
    assert (place in row) is next(iter(fields)).startswith(("match", "sticky"))


def test_the_status_counts_reports_and_says_what_was_dropped() -> None:
    assert "10,000 offered · 9,998 received · 2 dropped (buffer_full 2)" in shown(
        status_view(a_status())
    )


def test_a_route_without_traffic_shows_dashes_rather_than_figures() -> None:
    status = pb.RouteStatus(route=a_route(shadow=0), revision=1)

    text = shown(status_view(status))

    assert row(text, "stable") == ["stable", "blue", "v1", "100%", "-", "0", "0", "-", "-", "no"]
    assert "proxies   0 of 0 serve revision 1" in text
    assert "copies for" not in text
    assert "compared" not in text


def test_a_shadow_that_was_switched_off_keeps_its_counts() -> None:
    status = a_status()
    del status.route.shadows[:]

    assert copy_rows(status)[0][:4] == ["int8", "shadow", "0%", "10,000"]


def test_the_status_with_figures_in_millions_still_fits_a_terminal() -> None:
    status = a_status()
    for variant in status.variants:
        variant.requests = variant.split_requests = 123_456_789
        variant.latency_p99_ms = 12_345.67

    lines = shown(status_view(status)).splitlines()

    assert any("123,456,789" in line and "12,345.67" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    status = a_status()
    status.variants[1].reason = "\x1b[2J[bold]gone\n"

    assert r"canary is not ready: \x1b[2J[bold]gone\n" in shown(status_view(status))


# ---------------------------------------------------------------- routes, changes, history


def test_routes_show_split_shadows_and_sticky_key() -> None:
    healths = {"digits": RouteHealth("DEGRADED", ("a reason",))}
    text = shown(routes_view(pb.ListRoutesResponse(revision=7, routes=[a_route()]), healths))

    assert row(text, "digits")[1] == "DEGRADED"
    assert "stable 100%, canary 0%, int8 0%" in text
    assert "int8 100%" in text
    assert "x-user-id" in text
    assert "revision 7" in text


def test_a_router_without_routes_says_so() -> None:
    assert shown(routes_view(pb.ListRoutesResponse(revision=1), {})) == "no routes, revision 1\n"


def test_a_change_shows_before_and_after_and_who_serves_it() -> None:
    text = shown(
        change_view(
            a_status(),
            a_change(stable=9_000, canary=1_000),
            "variant",
            {"stable": 10_000, "canary": 0},
            {"stable": 9_000, "canary": 1_000},
        )
    )

    assert row(text, "stable") == ["stable", "100%", "→", "90%"]
    assert row(text, "canary") == ["canary", "0%", "→", "10%"]
    assert row(text, "variant") == ["variant", "revision", "7", "revision", "8"]
    assert "served by 2 of 2 proxies" in text


def test_history_tells_who_when_why_from_and_to() -> None:
    text = shown(history_view(a_history()), width=160)

    assert "2026-09-21 14:13:20Z" in text
    assert "ada@tower" in text
    assert "canary 0% → 10%, stable 100% → 90%" in text
    assert "bake [1h] done" in text
    assert "shadow int8 0% → 0.5%" in text


def test_a_change_of_nothing_says_nothing() -> None:
    same = pb.Split(weights_bp={"stable": 10_000})

    assert moves_text(same, same) == "nothing"
    assert shown(history_view(pb.GetHistoryResponse())) == "no changes\n"


# ---------------------------------------------------------------- infer


def test_an_answer_shows_who_gave_it_and_every_output() -> None:
    outputs = {
        "logits": np.array([[1.5, 2]], ml_dtypes.bfloat16),
        "label": np.array([b"\x1bseven"], object),
    }
    text = shown(answer_view(Answer("digits", "2", "r-1", outputs, "canary", 8, ()), 1.234))

    assert "digits   version 2 · variant canary, revision 8 · id r-1 · 1.23 ms" in text
    assert "logits   BF16 [1, 2]\n[[1.5, 2]]" in text
    assert r"\x1bseven" in text


def test_a_bulk_run_shows_shares_latencies_and_statuses() -> None:
    tally = CallTally(latencies_ms=[1.0, 2.0, 3.0], took_s=0.5, first_error="x")
    tally.answered.update({("stable", "1"): 2, ("canary", "2"): 1})
    tally.failed.update({"canary": 1})
    tally.by_status.update({"OK": 3, "UNAVAILABLE": 1})

    text = shown(tally_view(tally, 8))

    assert "4 calls in 0.50 s, 8 a second, 8 at a time" in text
    assert row(text, "stable") == ["stable", "1", "2", "50.00%"]
    assert ["canary", "failed", "1", "25.00%"] in [line.split() for line in text.splitlines()]
    assert "p50 2.00 ms · p99 2.98 ms" in text
    assert "OK 3, UNAVAILABLE 1" in text


def test_a_bulk_run_without_an_answer_has_no_latency() -> None:
    tally = CallTally(took_s=0.0)
    tally.by_status.update({"UNAVAILABLE": 1})

    assert "latency  -" in shown(tally_view(tally, 1))


def test_a_wide_console_gets_every_change_on_one_line() -> None:
    assert len(shown(history_view(a_history()), width=4_000).splitlines()) == 3
