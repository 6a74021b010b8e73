"""What is printed becomes events of the log. Each test has a process of its own to print in."""

import json
import subprocess
import sys
from typing import Any

import pytest

PROLOGUE = """
import ctypes, os, subprocess, sys, threading, warnings
from coalmine.process.lifecycle import announce
from coalmine.process.output_capture import capturing_output, printing_as
from coalmine.process.standard_streams import own_descriptor, uncaptured_stream
from coalmine.process.log import configure_logging
configure_logging("test")
libc = ctypes.CDLL(None)
"""


def ran(body: str, *, after: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `body` while the output is captured."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    return subprocess.run(
        [sys.executable, "-c", f"{PROLOGUE}with capturing_output():\n{indented}{after}"],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def logged(body: str, **options: Any) -> list[dict[str, Any]]:
    """Return the events of a process that says nothing else."""
    done = ran(body, **options)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def printed(body: str) -> list[tuple[str, str]]:
    return [(event["stream"], event["line"]) for event in logged(body)]


@pytest.mark.parametrize(
    ("body", "stream"),
    [
        ("print('hello')", "stdout"),
        ("sys.stdout.write('hel'); sys.stdout.write('lo')", "stdout"),
        ("sys.stdout.buffer.write(b'hello\\n')", "stdout"),
        ("os.write(1, b'hello')", "stdout"),
        ("libc.puts(b'hello')", "stdout"),
        ("libc.printf(b'hello')", "stdout"),
        ("subprocess.run(['echo', 'hello'], check=True)", "stdout"),
        ("print('hello', file=sys.stderr)", "stderr"),
        ("os.write(2, b'hello\\n')", "stderr"),
        ("libc.perror(b'hello')", "stderr"),
    ],
)
def test_whoever_prints_it_is_an_event(body: str, stream: str) -> None:
    ((found, line),) = printed(body)
    assert (found, line.partition(":")[0]) == (stream, "hello")


def test_a_rule_of_ones_own_that_prints_in_its_process_is_an_event_too() -> None:
    body = """
from functools import partial
from coalmine_router.observer.comparison.worker_process import WorkerProcess
worker = WorkerProcess(partial(print, "hello", flush=True))
worker.ask([7])
worker.end()
"""
    assert printed(body) == [("stderr", "hello 7")]


def test_an_event_says_how_much_it_matters() -> None:
    first, second = logged("print('a')\nprint('b', file=sys.stderr)")
    assert (first["event"], first["level"]) == ("printed", "info")
    assert (second["event"], second["level"]) == ("printed", "warning")


def test_a_warning_and_a_dying_thread_are_events_too() -> None:
    body = """
warnings.warn("careful")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
"""
    lines = [line for _, line in printed(body)]
    assert any("UserWarning: careful" in line for line in lines)
    assert "ZeroDivisionError: division by zero" in lines


def test_what_a_terminal_obeys_and_what_is_no_text_is_spelt_out() -> None:
    assert printed(r"print('\x1b[31mred')") == [("stdout", "\\x1b[31mred")]
    assert printed(r"os.write(1, b'\xff\n')") == [("stdout", "\\xff")]


def test_what_is_printed_at_the_very_end_is_logged_once() -> None:
    """The log has once written into the pipe that it read from."""
    body = """
import time
from coalmine.process.captured_descriptor import CapturedDescriptor
give_back = CapturedDescriptor.give_back
def print_and_give_back(pipe):
    os.write(2, b"hello\\n")
    time.sleep(0.2)
    give_back(pipe)
CapturedDescriptor.give_back = print_and_give_back
"""
    assert printed(body) == [("stderr", "hello"), ("stderr", "hello")]


def test_a_line_that_has_no_end_is_logged_while_the_process_goes_on() -> None:
    body = """
os.write(1, b"native")
print("python", end="")
announce()
sys.stdin.read()
"""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{PROLOGUE}with capturing_output():{body.replace(chr(10), chr(10) + '    ')}",
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as running:
        assert running.stderr is not None
        lines = {json.loads(running.stderr.readline()).get("line") for _ in range(3)}
        assert running.poll() is None
        running.kill()
    assert lines == {None, "native", "python"}


def test_a_flood_is_cut_short_and_counted_and_stops_nobody() -> None:
    body = """
for _ in range(5000):
    print("python")
for _ in range(5000):
    os.write(2, b"native\\n")
"""
    events = logged(body)
    lines = [event for event in events if event["event"] == "printed"]
    dropped = sum(event["lines"] for event in events if event["event"] == "printed_lines_dropped")
    assert 200 <= len(lines) < 400
    assert len(lines) + dropped <= 10_000
    assert dropped > 5000


def test_a_flood_of_one_model_drops_no_line_of_another() -> None:
    body = """
with printing_as(model="loud", version=1):
    for _ in range(5000):
        print("flood")
with printing_as(model="other", version=1):
    warnings.warn("wrong units")
"""
    events = logged(body)
    others = [event for event in events if event.get("model") == "other"]
    assert "wrong units" in others[0]["line"]
    assert {e["model"] for e in events if e["event"] == "printed_lines_dropped"} == {"loud"}


def test_a_flood_from_c_that_holds_pythons_lock_does_not_stop_the_process() -> None:
    body = """
write = ctypes.PyDLL(None).write
text = b"native\\n" * 100_000
for _ in range(5):
    write(2, text, len(text))
"""
    assert logged(body)[0]["line"] == "native"


# ---------------------------------------------------------------- who prints


def test_a_thread_prints_under_its_own_name() -> None:
    body = """
both = threading.Barrier(2)

def prints(name):
    with printing_as(model=name, version=1):
        both.wait()
        print("I am", end=" ")
        both.wait()
        print(name)

threads = [threading.Thread(target=prints, args=(name,)) for name in ("a", "b")]
for each in threads: each.start()
for each in threads: each.join()
"""
    found = {(event["model"], event["version"], event["line"]) for event in logged(body)}
    assert found == {("a", 1, "I am a"), ("b", 1, "I am b")}


def test_native_code_is_named_where_only_one_can_be_meant() -> None:
    body = """
os.write(1, b"nobody\\n")
with printing_as(model="a"):
    os.write(1, b"only a\\n")
    with printing_as(model="b"):
        os.write(1, b"a or b\\n")
    os.write(1, b"a again\\n")
os.write(1, b"nobody again\\n")
"""
    assert [(event["line"], event.get("model")) for event in logged(body)] == [
        ("nobody", None),
        ("only a", "a"),
        ("a or b", None),
        ("a again", "a"),
        ("nobody again", None),
    ]


# ---------------------------------------------------------------- what the process itself says


def test_what_a_process_itself_says_goes_where_it_always_went() -> None:
    body = """
announce(grpc="here")
print("coalmine: one line", file=uncaptured_stream(sys.stderr))
subprocess.run(["sh", "-c", "echo from a child >&2"], stderr=own_descriptor(sys.stderr))
"""
    done = ran(body, after="print('after')\nos.write(2, b'after\\n')")
    first, after = done.stdout.splitlines()
    assert (json.loads(first)["event"], after) == ("ready", "after")
    ready, *others = done.stderr.splitlines()
    assert json.loads(ready)["event"] == "ready"
    assert others == ["coalmine: one line", "from a child", "after"]


def test_an_error_that_ends_the_process_shows_its_traceback_as_ever() -> None:
    done = ran("raise RuntimeError('of ours')")
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: of ours\n")


def test_a_crash_in_native_code_shows_where_each_thread_was() -> None:
    done = ran("os.abort()")
    assert done.returncode == -6
    assert done.stderr.startswith("Fatal Python error: Aborted\n")
    assert "most recent call first" in done.stderr


# ---------------------------------------------------------------- streams that take nothing


def test_a_reader_of_the_log_that_is_gone_is_only_the_logs_loss() -> None:
    body = """
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, uncaptured_stream(sys.stderr).fileno())
for _ in range(3):
    print("hello")
    print("hello", file=sys.stderr)
announce()
"""
    done = ran(body)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["event"] == "ready"


def test_nobody_who_reads_the_announcement_is_no_reason_to_end() -> None:
    body = """
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, uncaptured_stream(sys.stdout).fileno())
announce()
print("hello")
"""
    done = ran(body)
    assert done.returncode == 0
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["ready", "printed"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_from_the_start_are_captured_too(closed: str) -> None:
    body = "print('hello'); os.write(2, b'hello\\n'); announce()"
    first = (
        "from coalmine.process.standard_streams import open_standard_streams as opened; opened()"
    )
    code = f"{first}{PROLOGUE}with capturing_output(): {body}"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
