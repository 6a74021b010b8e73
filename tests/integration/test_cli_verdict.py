"""What the program makes of a verdict: what it prints, and the code it exits with."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.root import program
from tests.doubles.control import FakeControl, a_judged_status, a_status, made_well, serving

Run = Callable[..., Result]


def judged_and_well(verdict: str = "fail") -> pb.RouteStatus:
    return made_well(a_judged_status(verdict))


@pytest.fixture
def control() -> FakeControl:
    found = FakeControl()
    found.answers["GetRoute"] = made_well(a_status())
    return found


@pytest.fixture
def run(control: FakeControl) -> Iterator[Run]:
    """Run `coalmine VERB…` with the router's address in the environment."""
    with serving(control) as address:
        yield lambda line: CliRunner().invoke(
            program(), line.split(), env={"COALMINE_CONTROL": address}
        )


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("inconclusive", 0), ("fail", 3)])
def test_the_exit_code_of_status_follows_the_verdict(
    run: Run, control: FakeControl, verdict: str, code: int
) -> None:
    control.answers["GetRoute"] = judged_and_well(verdict)
    result = run("status digits")
    assert result.exit_code == code
    assert result.stdout.startswith("SERVING\n")
    assert f"digits   {verdict.upper()}   " in result.stdout


@pytest.mark.parametrize("verb", ["status digits", "status digits --until-verdict"])
def test_a_pass_of_a_route_that_is_not_well_exits_with_5_and_says_why(
    run: Run, control: FakeControl, verb: str
) -> None:
    status = judged_and_well("pass")
    status.troubles.append("control.db: takes no changes: disk full")
    control.answers["GetRoute"], control.watched = status, [status]
    why = "DEGRADED: control.db: takes no changes: disk full"
    for line in (verb, f"{verb} --json", f"{verb} --all"):
        result = run(line)
        assert result.exit_code == 5
        assert result.stderr == f"coalmine: status: {why}\n"
        assert result.stdout.startswith(why) is ("--json" not in line)


def test_a_fail_is_told_before_what_else_is_wrong(run: Run, control: FakeControl) -> None:
    control.answers["GetRoute"] = a_judged_status()
    result = run("status digits")
    assert result.exit_code == 3
    assert result.stdout.startswith("DEGRADED: ")


def test_who_waits_in_vain_hears_what_is_wrong(run: Run, control: FakeControl) -> None:
    status = judged_and_well("inconclusive")
    del status.proxies[:]
    control.watched, control.watch_ends = [status], False
    result = run("status digits --until-verdict --timeout 200ms")
    assert result.exit_code == 4
    assert result.stderr.endswith("; DOWN: no proxy is connected to the control process\n")


def test_what_is_wrong_can_forge_no_line(run: Run, control: FakeControl) -> None:
    status = made_well(a_status())
    status.variants[0].ready, status.variants[0].reason = False, "\x1b[2Jgone\ncoalmine: fine"
    control.answers["GetRoute"] = status
    result = run("status digits")
    assert "\x1b" not in result.output
    assert result.stderr.count("\n") == 1


def test_a_failed_verdict_says_why_in_one_line(run: Run, control: FakeControl) -> None:
    control.answers["GetRoute"] = judged_and_well()
    assert run("status digits").stderr == (
        "coalmine: status: the verdict is FAIL: int8 against stable: "
        "at 2026-09-21 14:13:20Z: 3.1 % of 9,975 requests mismatch, allowed 1 %\n"
    )


def test_as_json_the_exit_code_is_the_same(run: Run, control: FakeControl) -> None:
    control.answers["GetRoute"] = judged_and_well()
    result = run("status digits --json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["verdict"] == "fail"


def test_of_one_candidate_only_its_own_verdict_counts(run: Run, control: FakeControl) -> None:
    control.answers["GetRoute"] = judged_and_well()
    assert run("status digits --candidate canary").exit_code == 0
    assert run("status digits --candidate int8").exit_code == 3


def test_a_candidate_that_the_route_does_not_have_is_wrong_usage(run: Run) -> None:
    for verb in ("status digits --candidate nix", "status digits --candidate nix --until-verdict"):
        result = run(verb)
        assert result.exit_code == 2
        assert "route 'digits' has no variant 'nix', but stable, canary, int8" in result.stderr


@contextmanager
def terminal(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield what a program writes to, and what shows it: a terminal of this size."""
    shows, program_side = pty.openpty()
    fcntl.ioctl(program_side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield program_side, shows
    finally:
        os.close(shows)
        os.close(program_side)


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_on_a_terminal_of_24_rows_the_first_line_stays_in_sight(
    control: FakeControl, columns: int
) -> None:
    control.answers["GetRoute"] = judged_and_well("pass")
    command = [sys.executable, "-m", "coalmine_client", "status", "digits", "--control"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    with serving(control) as address, terminal(24, columns) as (program_side, shows):
        done = subprocess.run([*command, address], stdout=program_side, env=environment, check=True)
        text = os.read(shows, 65_536).decode()
    assert done.returncode == 0
    assert text.startswith("\x1b[1;32mSERVING\x1b[0m\r\n")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert len(plain) < 24
    assert max(map(len, plain)) <= max(columns, 80)
    assert "…" not in text


def pieces(shows: int) -> Iterator[str]:
    """Yield what a terminal has to show, until there is no more."""
    while select.select([shows], [], [], 0)[0]:
        yield os.read(shows, 65_536).decode()


def watched_on(rows: int, columns: int, control: FakeControl) -> list[str]:
    """Return the rows that `status --watch --all` shows on a terminal of this size."""
    command = [sys.executable, "-m", "coalmine_client", "status", "digits", "--watch", "--all"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    with serving(control) as address, terminal(rows, columns) as (program_side, shows):
        done = subprocess.run(
            [*command, "--control", address], stdout=program_side, env=environment, check=False
        )
        text = "".join(pieces(shows))
    assert done.returncode == 1, "the router ended the watch"
    # What it painted last, after it went up to its first row.
    last = re.split(r"\x1b\[1A\x1b\[2K", text)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).splitlines()


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (10, 80), (24, 60)])
def test_a_watch_of_everything_says_what_does_not_fit_the_terminal(
    control: FakeControl, rows: int, columns: int
) -> None:
    shown = watched_on(rows, columns, control)
    assert len(shown) == rows
    assert re.fullmatch(r"[0-9]+ more lines: enlarge the window, or leave out --all", shown[-1]), (
        shown
    )
    assert max(map(len, shown)) <= columns


def test_a_watch_on_a_terminal_that_is_large_enough_loses_nothing(control: FakeControl) -> None:
    shown = watched_on(200, 80, control)
    whole = watched_on(200, 300, control)
    assert "more lines" not in shown[-1]
    # Cells of a narrow table are folded: the same characters in another order.
    seen = [Counter("".join("".join(each).split())) for each in (shown, whole)]
    assert seen[0] == seen[1]


# ---------------------------------------------------------------- --until-verdict


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 3)])
def test_until_verdict_waits_for_it_and_shows_the_status_that_has_it(
    run: Run, control: FakeControl, verdict: str, code: int
) -> None:
    control.watched = [judged_and_well("inconclusive"), judged_and_well(verdict)]
    control.watch_ends = False
    result = run("status digits --until-verdict")
    assert result.exit_code == code
    assert f"digits   {verdict.upper()}   " in result.stdout
    assert "INCONCLUSIVE" not in result.stdout


def test_until_verdict_gives_up_when_the_time_is_over(run: Run, control: FakeControl) -> None:
    control.watched = [judged_and_well("inconclusive")]
    control.watch_ends = False
    result = run("status digits --until-verdict --timeout 300ms")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr == (
        "coalmine: status: no verdict within 0.3 s: int8 against stable: not enough evidence yet\n"
    )


def test_as_json_the_last_status_is_there_also_where_the_time_is_over(
    run: Run, control: FakeControl
) -> None:
    control.watched = [a_status(), judged_and_well("inconclusive")]
    control.watch_ends = False
    result = run("status digits --until-verdict --json --timeout 300ms")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["verdict"] == "inconclusive"
    assert result.stderr.startswith("coalmine: status: no verdict within 0.3 s: ")


def test_a_route_without_a_candidate_has_no_verdict_to_wait_for_in_time(
    run: Run, control: FakeControl
) -> None:
    status = a_status()
    del status.comparisons[:]
    control.watched, control.watch_ends = [status], False
    result = run("status digits --until-verdict --timeout 200ms")
    assert result.exit_code == 4
    assert "nothing was compared yet" in result.stderr


def test_until_verdict_of_one_candidate_does_not_wait_for_others(
    run: Run, control: FakeControl
) -> None:
    status = judged_and_well("pass")
    status.verdict = "inconclusive"
    control.watched, control.watch_ends = [status], False
    assert run("status digits --until-verdict --candidate int8").exit_code == 0
    late = run("status digits --until-verdict --candidate canary --timeout 200ms")
    assert late.exit_code == 4


def test_a_router_that_is_started_anew_does_not_end_the_wait(
    run: Run, control: FakeControl
) -> None:
    control.watched = [judged_and_well("inconclusive")]
    control.watched_again = [judged_and_well("pass")]
    control.watch_breaks = True
    assert run("status digits --until-verdict").exit_code == 0


def test_the_wait_goes_on_until_a_router_that_has_just_started_knows_its_proxies(
    run: Run, control: FakeControl
) -> None:
    first, later = judged_and_well("pass"), judged_and_well("pass")
    first.at_ns, later.at_ns = first.counting_since_ns + 10**9, first.counting_since_ns + 2 * 10**9
    del first.proxies[:]
    control.watched, control.watch_ends = [first, later], False
    result = run("status digits --until-verdict")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_router_that_was_never_there_ends_the_wait_at_once(
    run: Run, control: FakeControl
) -> None:
    control.errors["WatchRoute"] = grpc.StatusCode.UNAVAILABLE, "not now"
    result = run("status digits --until-verdict")
    assert result.exit_code == 1
    assert result.stderr == "coalmine: status: not now (UNAVAILABLE)\n"


def test_until_verdict_prints_one_json_object(run: Run, control: FakeControl) -> None:
    control.watched = [judged_and_well("inconclusive"), judged_and_well("pass")]
    found = json.loads(run("status digits --until-verdict --json").stdout)
    assert found["verdict"] == "pass"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("status digits --timeout 5m", "--timeout goes with --until-verdict"),
        ("status digits --watch --until-verdict", "exclude each other"),
        ("status digits --until-verdict --timeout 5", "expected a duration such as"),
        ("status digits --until-verdict --timeout soon", "got 'soon'"),
        ("status digits --until-verdict --timeout 0s", "expected a time to wait, got '0s'"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(run: Run, line: str, why: str) -> None:
    result = run(line)
    assert result.exit_code == 2
    assert why in result.stderr


def test_the_help_says_what_the_exit_codes_are() -> None:
    text = " ".join(CliRunner().invoke(program(), ["status", "--help"]).output.split())
    assert "Exits with 3 where the verdict is FAIL" in text
    assert "4 where --until-verdict has none in time" in text
    assert "5 where the health is not SERVING" in text


# ---------------------------------------------------------------- as JSON


def test_a_judgement_as_json(run: Run, control: FakeControl) -> None:
    status = judged_and_well()
    status.comparisons[0].candidate_addresses.add(
        address="10.0.0.7:1", ready=True, compared=9, mismatch=2, failed=1, stands_out=True
    )
    control.answers["GetRoute"] = status
    found: Any = json.loads(run("status digits --json").stdout)["comparisons"][0]
    assert (found["reference_addresses"], found["addresses_let_go"]) == ([], 0)
    assert found["candidate_addresses"] == [
        {
            "address": "10.0.0.7:1",
            "ready": True,
            "compared": 9,
            "mismatch": 2,
            "failed": 1,
            "at": None,
            "stands_out": True,
        }
    ]
    assert found["verdict"]["verdict"] == "fail"
    assert found["verdict"]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert found["verdict"]["gates"][1] == {
        "gate": "errors",
        "finding": "open",
        "reason": "5 of 9,980 failed",
        "log_fail": 0.75,
        "log_pass": 0.0,
        "log_needed": 3.0,
        "observed": 5,
        "at": None,
    }
    assert found["trial"] == {
        "number": 3,
        "reference_version": "1",
        "candidate_version": "2",
        "began": "2026-09-21T14:13:20.000000Z",
        "ended": None,
        "why": "candidate version",
    }
    assert found["rate"] == {"value": 0.031, "low": 0.019, "high": 0.0481, "requests": 9_975}
    assert found["outputs"][1]["raw"] is None
    assert found["segments"][3] == {
        "name": "tenant-3",
        "verdict": "inconclusive",
        "match": 100,
        "mismatch": 3,
        "error": 1,
        "rate": {"value": 0.03, "low": 0.015, "high": 0.06, "requests": 0},
    }


def test_health_as_json(run: Run, control: FakeControl) -> None:
    assert json.loads(run("status digits --json").stdout)["health"] == {
        "state": "SERVING",
        "reasons": [],
    }
    control.answers["GetRoute"] = a_status()
    found = json.loads(run("status digits --json").stdout)["health"]
    assert found["state"] == "DEGRADED"
    assert found["reasons"] == [
        "1 of 2 proxies don't serve revision 7: p-4712 has revision 6, it refused: no such backend"
    ]


def test_copies_and_how_comparing_keeps_up_as_json(run: Run) -> None:
    found = json.loads(run("status digits --json").stdout)
    copies = found["shadows"][0]
    assert copies["offered"] == sum(
        (copies["waiting"], copies["under_way"], copies["sent"], *copies["dropped"].values())
    )
    assert copies["sent"] == copies["timed_out"] + copies["failed"] + copies["answered"]
    assert (copies["role"], copies["circuit"]) == ("shadow", "closed")
    assert found["comparing"]["share_bp"] == 10_000


def test_trials_as_json(run: Run) -> None:
    first, second = json.loads(run("trials digits --json").stdout)["trials"]
    assert (first["trial"]["number"], first["trial"]["ended"]) == (3, None)
    assert second["trial"]["ended"] == "2026-09-21T14:13:20.000000Z"
    assert second["verdict"]["verdict"] == "pass"
