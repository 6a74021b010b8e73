"""What a process writes to its log; each runs on its own, because logging is one for a process."""

import contextlib
import json
import os
import select
import subprocess
import sys
from typing import IO, Any

import pytest

PROLOGUE = """
import logging, structlog
from coalmine.process.log import configure_logging
configure_logging("coalmine-server")
log = structlog.get_logger("a.module")
"""


def logged(body: str, **environ: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + body],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    )
    return done.stdout, done.stderr


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_log_line_is_one_json_object_on_standard_error_with_the_service() -> None:
    out, err = logged("log.info('loaded', model='digits')")

    (event,) = events(err)
    assert out == ""
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "service": "coalmine-server",
        "event": "loaded",
        "level": "info",
        "model": "digits",
    }


def test_a_traceback_stays_on_its_line() -> None:
    _, err = logged("try:\n    1 / 0\nexcept ArithmeticError:\n    log.exception('failed')")

    (event,) = events(err)
    assert "ZeroDivisionError" in event["exception"]


def test_libraries_that_log_the_standard_way_end_up_in_the_same_form() -> None:
    _, err = logged("logging.getLogger('grpc').warning('slow %s', 'call')")

    (event,) = events(err)
    assert (event["event"], event["level"]) == ("slow call", "warning")
    assert event["service"] == "coalmine-server"


def test_the_level_is_that_of_the_variable() -> None:
    body = "log.info('no'); log.warning('yes'); logging.getLogger('x').info('no')"

    _, err = logged(body, COALMINE_LOG_LEVEL="warning")

    assert [event["event"] for event in events(err)] == ["yes"]


def test_a_level_that_there_isnt_is_refused() -> None:
    body = """
from coalmine.errors import StartError
try:
    configure_logging("x")
except StartError as error:
    print(error)
"""
    prologue = "import os; os.environ['COALMINE_LOG_LEVEL'] = 'loud'"

    out, _ = logged(f"{prologue}\n{body}")

    assert out == "COALMINE_LOG_LEVEL: expected debug … error, got 'loud'\n"


def test_the_form_for_people_is_no_json() -> None:
    _, err = logged("log.info('loaded', model='digits')", COALMINE_LOG_FORMAT="console")

    assert "loaded" in err
    with pytest.raises(ValueError, match=r"Expecting value|Extra data"):
        json.loads(err)


def test_a_traceback_for_people_shows_no_variables() -> None:
    code = """
pixels = "a caller" + "'s data"
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""

    _, err = logged(code, COALMINE_LOG_FORMAT="console")

    assert "ZeroDivisionError" in err
    assert "a caller's data" not in err


GONE = """
from grpc._cython.cygrpc import ExecuteBatchError
for error in (ExecuteBatchError("gone"), ValueError("another")):
    try:
        raise error
    except Exception:
        logging.getLogger("grpc._cython.cygrpc").exception("raised in core")
"""


def test_a_caller_who_is_gone_as_its_answer_is_sent_is_no_error_of_ours() -> None:
    (event,) = events(logged(GONE)[1])
    assert "ValueError: another" in event["exception"]
    lines = events(logged(GONE, COALMINE_LOG_LEVEL="debug")[1])
    assert [each["event"] for each in lines if "exception" in each] == ["raised in core"] * 2


FLOODS = """
import sys
for n in range(2000):
    log.info("flood", n=n, text="é" * (n % 7) * 300)
print("through", flush=True)
sys.stdin.readline()
log.info("again")
"""


def _drained(pipe: IO[bytes] | None) -> bytes:
    """Return what a pipe holds now."""
    assert pipe is not None
    held = b""
    os.set_blocking(pipe.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while more := os.read(pipe.fileno(), 1 << 16):
            held += more
    os.set_blocking(pipe.fileno(), True)
    return held


def test_a_reader_that_stops_reading_stops_no_process_and_loses_whole_lines_that_are_counted() -> (
    None
):
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + FLOODS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        try:
            ready, _, _ = select.select([process.stdout], [], [], 30)
            assert ready, "it waits for its reader"
        finally:
            if not ready:
                process.kill()
        flood = _drained(process.stderr)  # else the pipe may still be full when it goes on
        _, err = process.communicate(b"\n")

    *_, lost, again = said = [each for each in (flood + err).decode().splitlines() if each]
    whole = [each for each in said if each.endswith("}")]
    assert json.loads(again)["event"] == "again"
    assert json.loads(lost)["event"] == "log_lines_lost"
    assert len(said) - len(whole) <= 1  # the one at which the pipe was full
    assert json.loads(lost)["lines"] + len(whole) == 2000 + 2
