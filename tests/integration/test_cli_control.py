"""The operator's verbs against a control API that answers by the book."""

import getpass
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.root import program
from coalmine_client.cli.route_health import health_of
from tests.doubles.control import FakeControl, a_mismatch, a_route, a_status, made_well, serving

Run = Callable[..., Result]

READ_VERBS = ["routes", "status digits", "history digits", "trials digits", "mismatches digits"]
CHANGES = {"weights digits canary=10": "SetWeights", "shadow digits int8=25%": "SetShadow"}
METHODS = {
    "routes": "ListRoutes",
    "status digits": "GetRoute",
    "status digits --watch": "WatchRoute",
    "status digits --until-verdict": "WatchRoute",
    "history digits": "GetHistory",
    "trials digits": "ListTrials",
    "mismatches digits": "ListMismatches",
    "mismatches digits --show m-17": "GetMismatch",
    **CHANGES,
}


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def address(control: FakeControl) -> Iterator[str]:
    with serving(control) as address:
        yield address


@pytest.fixture
def run(address: str) -> Run:
    """Run `coalmine VERB…` with the router's address in the environment."""
    return lambda line: CliRunner().invoke(
        program(), line.split(), env={"COALMINE_CONTROL": address}
    )


# ---------------------------------------------------------------- what is asked


def test_weights_sends_exact_shares_with_who_and_why(run: Run, control: FakeControl) -> None:
    result = run("weights digits canary=33.33 stable=66.67 --reason because --expect-revision 7")

    assert result.exit_code == 0, result.output
    assert control.requests[-1] == pb.SetWeightsRequest(
        route="digits",
        weights_bp={"canary": 3_333, "stable": 6_667},
        reason="because",
        expect_revision=7,
        actor=f"{getpass.getuser()}@{socket.gethostname()}",
    )


def test_weights_leaves_out_stable_where_it_isnt_named(run: Run, control: FakeControl) -> None:
    run("weights digits canary=10")

    assert dict(control.requests[-1].weights_bp) == {"canary": 1_000}


def test_shadow_sends_its_share_with_who_and_why(run: Run, control: FakeControl) -> None:
    result = run("shadow digits int8=0% --reason off --expect-revision 3")

    assert result.exit_code == 0, result.output
    assert control.requests[-1] == pb.SetShadowRequest(
        route="digits",
        variant="int8",
        share_bp=0,
        reason="off",
        expect_revision=3,
        actor=f"{getpass.getuser()}@{socket.gethostname()}",
    )


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("status digits", pb.GetRouteRequest(route="digits")),
        ("status digits --watch", pb.WatchRouteRequest(route="digits")),
        ("status digits --until-verdict --timeout 900ms", pb.WatchRouteRequest(route="digits")),
        (
            "trials digits --candidate int8 --limit 3",
            pb.ListTrialsRequest(route="digits", candidate="int8", limit=3),
        ),
        ("history digits --limit 3", pb.GetHistoryRequest(route="digits", limit=3)),
        (
            "mismatches digits --output logits --limit 5",
            pb.ListMismatchesRequest(route="digits", output="logits", limit=5),
        ),
        ("mismatches digits --show m-17", pb.GetMismatchRequest(route="digits", id="m-17")),
    ],
)
def test_a_read_verb_asks_for_what_the_line_says(
    run: Run, control: FakeControl, line: Any, request_: Any
) -> None:
    run(line)

    assert control.requests == [request_]


def test_routes_asks_for_them_and_for_the_status_of_each(run: Run, control: FakeControl) -> None:
    run("routes")

    assert control.requests == [pb.ListRoutesRequest(), pb.GetRouteRequest(route="digits")]


def test_a_route_whose_status_cannot_be_had_is_listed_without_health(
    run: Run, control: FakeControl
) -> None:
    control.errors["GetRoute"] = grpc.StatusCode.NOT_FOUND, "no route 'digits'"

    result = run("routes --json")

    assert result.exit_code == 0, result.output
    assert [each["health"] for each in json.loads(result.stdout)["routes"]] == [None]


def test_the_option_overrules_the_environment(address: str, control: FakeControl) -> None:
    result = CliRunner().invoke(
        program(), ["routes", "--control", address], env={"COALMINE_CONTROL": "127.0.0.1:1"}
    )

    assert result.exit_code == 0, result.output
    assert control.requests


# ---------------------------------------------------------------- what is shown


def test_weights_shows_before_and_after_the_new_revision_and_who_serves_it(run: Run) -> None:
    words = [line.split() for line in run("weights digits canary=10").stdout.splitlines()]

    assert ["stable", "100%", "→", "90%"] in words
    assert ["canary", "0%", "→", "10%"] in words
    assert " ".join(words[-1]) == "digits is at revision 8, served by 2 of 2 proxies"


def test_a_shadow_that_is_switched_off_shows_its_share_as_zero_after(
    run: Run, control: FakeControl
) -> None:
    control.answers["SetShadow"] = pb.ChangeResponse(route=a_route(shadow=0), revision=8)

    result = run("shadow digits int8=0")

    assert ["int8", "100%", "→", "0%"] in [line.split() for line in result.stdout.splitlines()]
    assert "served by 0 of 0 proxies" in result.stdout


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("routes", "stable 100%, canary 0%, int8 0%"),
        ("status digits", "canary answered UNAVAILABLE 2, INTERNAL 1"),
        ("status digits --all", "canary is not ready: model 'digits' version 2 is loading"),
        ("history digits", "canary 0% → 10%, stable 100% → 90%"),
        ("trials digits", "int8 against stable"),
        ("mismatches digits", "0af7651916cd43dd8448eb211c80319c"),
        ("mismatches digits --show m-17", "worst at [0, 3]: expected 0.375, got 2.5"),
    ],
)
def test_piped_output_is_plain_and_whole(
    run: Run, control: FakeControl, line: Any, text: Any
) -> None:
    made_well(control.answers["GetRoute"])
    result = run(line)

    assert result.exit_code == 0, result.output
    assert text in result.stdout
    assert "\x1b" not in result.stdout
    # Of many values the first are shown, with their number.
    assert "…" not in result.stdout.replace(", … (64 elements)", "")
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


def test_a_row_that_is_wider_than_any_terminal_stays_on_one_line_in_a_pipe(
    run: Run, control: FakeControl
) -> None:
    control.answers["GetHistory"].changes[0].reason = "why " * 100

    assert len(run("history digits").stdout.splitlines()) == 3


def test_routes_as_json(run: Run) -> None:
    assert json.loads(run("routes --json").stdout) == {
        "revision": 7,
        "routes": [
            {
                "name": "digits",
                "match_model": "digits",
                "match_default": False,
                "match_service": "",
                "match_method": "",
                "variants": [
                    {"name": "stable", "backend": "blue", "model": "", "version": "1"}
                    | {"weight_bp": 10_000},
                    {"name": "canary", "backend": "blue", "model": "", "version": "2"}
                    | {"weight_bp": 0},
                    {"name": "int8", "backend": "green", "model": "digits-int8", "version": ""}
                    | {"weight_bp": 0},
                ],
                "shadows": [{"variant": "int8", "share_bp": 10_000}],
                "sticky_metadata": "x-user-id",
                "sticky_parameter": "",
                "sticky_id": False,
                "timeout_ms": 2_000.0,
                "pinning": True,
                "fallback": True,
                "health": {
                    "state": "DEGRADED",
                    "reasons": list(health_of(a_status()).reasons),
                },
                "audit_bp": 0,
                "noise_bp": 0,
                "copy_methods": [],
                "stateful": False,
                "limits": {"in_flight_max": 512, "bytes_max": 0},
            }
        ],
    }


def test_status_as_json(run: Run) -> None:
    found = json.loads(run("status digits --json").stdout)

    assert found["revision"] == 7
    assert found["counting_since"] == "2026-09-21T14:13:20.000000Z"
    assert found["route"]["name"] == "digits"
    assert found["variants"][1] == {
        "name": "canary",
        "ready": False,
        "reason": "model 'digits' version 2 is loading",
        "requests": 999,
        "requests_by_status": {"INTERNAL": 1, "OK": 996, "UNAVAILABLE": 2},
        "split_requests": 999,
        "split_share": 0.0999,
        "fallbacks": {"UNAVAILABLE": 2, "not_ready": 40},
        "latency_p50_ms": 1.31,
        "latency_p99_ms": 14.02,
        "recent_requests": 0,
        "recent_errors": 0,
    }
    assert found["shadows"][0]["dropped"] == {"deadline": 0, "queue_full": 7, "too_large": 3}
    assert found["comparisons"][0]["mismatch_rate"] == 100 / 9_975
    assert found["comparisons"][0]["outputs"][0] == {
        "output": "logits",
        "match": 9_875,
        "mismatch": 100,
        "max_abs_diff": 0.03125,
        "rule": "",
        "rows": 0,
        "rows_mismatch": 0,
        "raw": None,
        "noise": None,
        "beyond_noise": None,
    }
    assert found["proxies"][1]["refused"] == "no such backend"
    assert found["proxies"][0]["reach"][1] == {
        "variant": "canary",
        "addresses": 2,
        "available": 1,
        "troubles": ["127.0.0.1:8001 does not answer"],
    }
    assert found["turned_away"] == {"bytes": 0, "in_flight": 12}
    assert found["reports"] == {
        "offered": 10_000,
        "received": 9_998,
        "dropped": {"buffer_full": 2},
        "recent_dropped": 0,
    }


def test_status_as_json_of_a_route_without_traffic_has_nulls_for_rates(
    run: Run, control: FakeControl
) -> None:
    control.answers["GetRoute"] = pb.RouteStatus(
        route=a_route(),
        variants=[pb.VariantStatus(name="stable", latency_p50_ms=float("nan"))],
        comparisons=[
            pb.ComparisonCounts(outputs=[pb.OutputCounts(max_abs_diff=float("inf"))]),
        ],
    )

    found = json.loads(run("status digits --json").stdout)

    assert found["counting_since"] is None
    assert found["variants"][0]["split_share"] is None
    assert found["variants"][0]["latency_p50_ms"] == "NaN"
    assert found["comparisons"][0]["mismatch_rate"] is None
    assert found["comparisons"][0]["outputs"][0]["max_abs_diff"] == "Infinity"


def test_history_as_json(run: Run) -> None:
    first, second = json.loads(run("history digits --json").stdout)["changes"]

    assert first == {
        "revision": 8,
        "route": "digits",
        "at": "2026-09-21T14:13:20.000000Z",
        "actor": "ada@tower",
        "reason": "bake [1h] done",
        "action": "weights",
        "before": {"weights_bp": {"canary": 0, "stable": 10_000}, "shadows_bp": {}},
        "after": {"weights_bp": {"canary": 1_000, "stable": 9_000}, "shadows_bp": {}},
    }
    assert second["at"] is None


def test_mismatches_as_json(run: Run) -> None:
    (found,) = json.loads(run("mismatches digits --json").stdout)["mismatches"]

    assert found["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert found["differences"][0]["index"] == [0, 3]
    assert "request" not in found


def test_one_mismatch_as_json_has_its_tensors(run: Run) -> None:
    found = json.loads(run("mismatches digits --show m-17 --json").stdout)

    assert found["id"] == "m-17"
    assert found["reference_response"]["tensors"]["logits"]["data"][3] == 0.375
    assert found["candidate_response"]["tensors"]["logits"]["data"][3] == 2.5
    assert found["request"]["tensors"]["pixels"]["shape"] == [1, 64]


def test_a_mismatch_of_more_than_four_mebibytes_is_shown(run: Run, control: FakeControl) -> None:
    large = a_mismatch(bodies=True)
    large.request = bytes(5 * 1024 * 1024)
    control.answers["GetMismatch"] = large

    assert "worst at [0, 3]" in run("mismatches digits --show m-17").stdout


# ---------------------------------------------------------------- watch


def test_watch_in_a_pipe_prints_each_status_and_fails_when_the_router_ends_it(
    run: Run, control: FakeControl
) -> None:
    control.watched = [a_status(), a_status()]
    control.watched[1].revision = 8

    result = run("status digits --watch")

    assert "revision 7" in result.stdout
    assert "proxies   0 of 2 serve revision 8" in result.stdout
    assert result.exit_code == 1
    assert result.stderr == "coalmine: status: the router ended the watch\n"


def test_watch_as_json_prints_one_object_a_line(run: Run, control: FakeControl) -> None:
    control.watched = [a_status(), a_status()]

    lines = run("status digits --watch --json").stdout.splitlines()

    assert [json.loads(line)["revision"] for line in lines] == [7, 7]


@contextmanager
def watching(address: str) -> Iterator[subprocess.Popen[str]]:
    """Watch in a process of its own, from which the first status has come."""
    command = [sys.executable, "-c", "from coalmine_client.cli import main; main()"]
    arguments = ["status", "digits", "--watch", "--json", "--control", address]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["revision"] == 7
        yield process


def test_ctrl_c_ends_a_watch_quietly_with_130(control: FakeControl, address: str) -> None:
    control.watch_ends = False
    with watching(address) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert errors == ""


def test_a_watch_whose_router_goes_away_ends_with_one_line(control: FakeControl) -> None:
    control.watch_ends = False
    with ExitStack() as router:
        address = router.enter_context(serving(control))
        with watching(address) as process:
            router.close()
            _, errors = process.communicate(timeout=30)

    assert process.returncode == 1
    assert errors.startswith(
        f"coalmine: status: cannot reach the router's control API at {address}: "
    )
    assert errors.count("\n") == 1


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(("line", "method"), METHODS.items())
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNAVAILABLE,
    ],
)
def test_a_refusal_is_one_line_with_its_code(
    run: Run, control: FakeControl, line: Any, method: Any, code: Any
) -> None:
    control.errors[method] = code, "that's how it is,\nand more"

    result = run(line)

    verb = line.split()[0]
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"coalmine: {verb}: that's how it is, and more ({code.name})\n"


@pytest.mark.parametrize("line", METHODS)
def test_a_port_that_is_another_service_is_told_from_a_refusal(
    run: Run, control: FakeControl, line: Any
) -> None:
    for method in METHODS.values():
        control.errors[method] = grpc.StatusCode.UNIMPLEMENTED, "Method not found!"

    result = run(line)

    verb = line.split()[0]
    assert result.exit_code == 1
    assert result.stderr.startswith(f"coalmine: {verb}: what answers at 127.0.0.1:")
    assert result.stderr.endswith(
        " is not the router's control API, or an older one: Method not found! (UNIMPLEMENTED)\n"
    )


@pytest.mark.parametrize("target", ["127.0.0.1:{}", "dns:///127.0.0.1:{}", "ipv4:127.0.0.1:{}"])
@pytest.mark.parametrize("line", METHODS)
def test_a_port_that_there_is_none_of_is_not_taken_for_another(
    address: str, control: FakeControl, line: Any, target: str
) -> None:
    port = int(address.rpartition(":")[2]) + 65_536
    result = CliRunner().invoke(program(), [*line.split(), "--control", target.format(port)])

    assert result.exit_code == 2
    assert f":{port}' is not an address: expected host:port\n" in result.stderr
    assert control.requests == []


@pytest.mark.parametrize("line", METHODS)
def test_a_router_that_cant_be_reached_is_told_with_its_address(line: Any) -> None:
    result = CliRunner().invoke(program(), line.split(), env={"COALMINE_CONTROL": "127.0.0.1:1"})

    verb = line.split()[0]
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"coalmine: {verb}: cannot reach the router's control API at 127.0.0.1:1: "
    )
    assert "refused" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            "weights digits canary=ten",
            "expected a percentage from 0 to 100, two decimals at most, got ten",
        ),
        ("weights digits canary=0.001", "two decimals at most"),
        ("weights digits canary=1 canary=2", "'canary' is given twice"),
        ("shadow digits int8", "expected NAME=PERCENT"),
    ],
)
def test_a_wrong_share_is_wrong_usage_and_asks_nobody(
    run: Run, control: FakeControl, line: Any, why: Any
) -> None:
    result = run(line)

    assert result.exit_code == 2
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert control.requests == []


@pytest.mark.parametrize(
    "line",
    [
        "weights digits",
        "weights",
        "status",
        "status digits --json=1",
        "history digits --limit 0",
        "weights digits canary=1 --expect-revision -1",
        "weights digits canary=1 --expect-revision 18446744073709551616",
        "shadow digits int8=1 --expect-revision 18446744073709551616",
        "nonsense",
    ],
)
def test_a_line_that_doesnt_parse_is_wrong_usage(run: Run, control: FakeControl, line: Any) -> None:
    result = run(line)

    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert control.requests == []


@pytest.mark.parametrize("verb", READ_VERBS)
def test_every_read_verb_prints_json(run: Run, verb: Any) -> None:
    assert json.loads(run(f"{verb} --json").stdout)
