"""`coalmine demo` as a user starts it; slow, because it is the real thing."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from coalmine.process.addresses import bound_address, reserve
from coalmine_demo.demo_failure import StepFailed
from coalmine_demo.demo_processes import DemoProcesses
from tests.doubles.processes import started as started_process

PROGRAM = "from coalmine_client.cli import main; main()"
DEMO = (sys.executable, "-c", PROGRAM, "demo")
PATIENCE_S = 240

CLAIMS = (
    "every request was answered while the route changed",
    "every answer is what the variant it names answers in local torch",
    "the split stable 90% / canary 10% is exact",
    "the split stable 50% / canary 50% is exact",
    "the canary reads the held-out digits at least as well as stable",
    "the broken canary was caught by comparisons before it had any weight, and only it",
    "the verdict on the broken canary is FAIL, within 200 comparisons",
    "no verdict on a candidate that local torch finds within the limit is FAIL",
    "the router counted what local torch counts, request by request",
    "int8 answers nearly, and not quite, like the model that it was made of",
    "every request is one trace, from the router into the server",
    "the processes ended when asked to, without an error",
)


@dataclass(frozen=True)
class Ran:
    folder: Path
    code: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("demo") / "kept"
    # Where this process sends its own spans is no business of the demo's.
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "40"}
    done = subprocess.run(
        (*DEMO, "--keep", str(folder)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environ,
        check=False,
    )
    return Ran(folder, done.returncode, done.stdout, done.stderr)


@pytest.mark.timeout(PATIENCE_S + 30)
def test_the_demo_ends_by_itself_with_every_claim_come_true(ran: Ran) -> None:
    assert ran.code == 0, ran.output + ran.errors
    claims = [line for line in ran.output.splitlines() if line.startswith(("  ✓ ", "  ✗ "))]
    assert [line[4:].partition(": ")[0] for line in claims] == list(CLAIMS)
    assert all(line.startswith("  ✓ ") for line in claims)
    assert ran.errors == ""


def test_the_demo_shows_the_commands_it_typed_and_what_they_did(ran: Ran) -> None:
    for line in (
        "$ coalmine status digits --candidate broken; echo $?\n    FAIL  broken against stable  ",
        ", allowed 15 %; worst output: logits\n    3\n",
        "$ coalmine shadow digits broken=0% --reason 'the verdict is FAIL'",
        "$ coalmine weights digits canary=10 --reason",
        "$ coalmine weights digits canary=50 --reason",
        "digits is at revision 5, served by 1 of 1 proxies",
    ):
        assert line in ran.output


def test_every_line_of_the_traces_is_otlp_json(ran: Ran) -> None:
    folders = (ran.folder / "state" / "traces", ran.folder / "server-traces", ran.folder)
    for folder in folders:
        files = list(folder.glob("traces*.jsonl"))
        assert files, folder
        for file in files:
            for line in file.read_text().splitlines():
                assert json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]


def test_the_trace_to_open_is_in_the_file_to_upload(ran: Ran) -> None:
    said = re.search(r"the broken canary, caught: +trace ([0-9a-f]{32})", ran.output)
    assert said is not None
    lines = (ran.folder / "traces.jsonl").read_text().splitlines()
    # A request that shared its batch is named in the other traces of the batch, too.
    opened = [line for line in lines if said[1] in trace_ids(line)]
    assert len(opened) == 1
    for named in ("coalmine-router", "coalmine-server", '"broken"', '"mismatch"'):
        assert named in opened[0]


def trace_ids(line: str) -> set[str]:
    """Return the trace ids of the spans in a line."""
    return {
        span["traceId"]
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


def test_the_next_commands_that_the_demo_names_work(ran: Ran) -> None:
    said = re.search(r"  coalmine (traces .*)", ran.output)
    assert said is not None
    assert "broken against stable, shadow: mismatch" in asked(*said[1].split())[1]

    command = re.search(r"coalmine (router control .*)", ran.output)
    exported = re.search(r"coalmine (mismatches digits --export \w{16} --to .*)", ran.output)
    assert command is not None
    assert exported is not None
    anywhere = command[1].replace("127.0.0.1:9002", "127.0.0.1:0").split()
    with started_process(*anywhere, folder=ran.folder / "logs") as control:
        at = ("--control", control.address("control"))
        assert asked("status", "digits", "--candidate", "broken", *at)[0] == 3
        assert asked(*exported[1].split(), *at)[0] == 0
    assert list(ran.folder.glob("*.npz"))


def asked(*arguments: str) -> tuple[int, str]:
    """Return the exit code of `coalmine ARGUMENTS`, and its output."""
    command = (sys.executable, "-c", PROGRAM, *arguments)
    environ = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environ, check=False
    )
    return done.returncode, done.stdout


def test_the_demo_leaves_no_process_behind(ran: Ran) -> None:
    assert started(ran.folder)
    assert alive(ran.folder) == []


# ---------------------------------------------------------------- ends that are not the end


def started(folder: Path) -> list[int]:
    """The processes that were started, as their logs tell."""
    router = (folder / "logs" / "router.log").read_text().splitlines()
    said = [json.loads(line) for line in router if line.startswith("{")]
    return [line["pid"] for line in said if line["event"] == "process_started"]


def alive(folder: Path) -> list[str]:
    """Every process whose command line names `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def lines_until(output: Iterator[str], wanted: str) -> list[str]:
    seen = []
    for line in output:
        seen.append(line)
        if wanted in line:
            break
    return seen


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize(
    ("asked", "after"),
    [(signal.SIGTERM, "Everything stays in"), (signal.SIGINT, "coalmine router run")],
    ids=["while it trains", "while it serves"],
)
def test_a_demo_that_is_interrupted_stops_all_its_processes(
    tmp_path: Path, asked: signal.Signals, after: str
) -> None:
    folder = tmp_path / "kept"
    with subprocess.Popen(
        (*DEMO, "--keep", str(folder)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = lines_until(process.stdout, after)
        assert alive(folder), seen
        process.send_signal(asked)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
    assert alive(folder) == []


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = subprocess.run(
        (*DEMO, "--keep", str(tmp_path)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"coalmine: --keep {tmp_path}: it exists and is not an empty folder\n"
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("absent", ["torch", "sklearn"])
def test_without_what_training_needs_the_demo_says_what_to_install(absent: str) -> None:
    without = f"import sys; sys.modules[{absent!r}] = None; {PROGRAM}"
    done = subprocess.run(
        (sys.executable, "-c", without, "demo"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "coalmine: the demo needs torch and scikit-learn; pip install 'coalmine[demo]'\n"
    )


# ---------------------------------------------------------------- the parts that compose starts


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", f"coalmine_demo.{name}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_traffic_that_is_not_answered_is_counted_and_ends_with_1(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", np.zeros((2, 64), dtype=np.float32))
    with closing(reserve("127.0.0.1:0", shared=False)) as nobody_listens:
        target = bound_address(nobody_listens)
        done = run_module("traffic", "--target", target, "--data", str(tmp_path), "--count", "3")
    assert done.stdout == "3 requests: nobody UNAVAILABLE 3\n"
    assert (done.returncode, done.stderr) == (1, "")


def test_traffic_without_images_says_so_in_one_line(tmp_path: Path) -> None:
    done = run_module("traffic", "--data", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"coalmine: {tmp_path / 'pixels.npy'}: ")
    assert done.stderr.count("\n") == 1


async def test_a_process_that_ends_before_it_is_ready_is_told_with_its_last_words(
    tmp_path: Path,
) -> None:
    said = r"server ended with exit code 2: coalmine: .*nowhere.* \(see .*server\.log\)"
    async with DemoProcesses(tmp_path / "logs", os.environ) as processes:
        with pytest.raises(StepFailed, match=said):
            await processes.start("server", "router", "run", "--config", str(tmp_path / "nowhere"))


async def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    async with DemoProcesses(tmp_path / "logs", os.environ) as processes:
        with pytest.raises(StepFailed, match="coalmine router ended with exit code 2: coalmine: "):
            await processes.call("router", "check", str(tmp_path / "nowhere"))
