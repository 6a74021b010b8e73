"""Comparing in real processes: what they import, survive, and leave behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from coalmine.clock import SystemClock
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison import job
from coalmine_router.observer.comparison.job import ComparisonJob
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.comparison.worker_process import WorkerLost, WorkerProcess
from tests.doubles.comparing import comparing, run, words
from tests.doubles.oip_backend import response_body
from tests.doubles.waiting import eventually, until

LARGE = 64 * 1024 + 1
ROOT = Path(__file__).parents[2]


@contextmanager
def worker(patience_s: float = 60.0) -> Iterator[WorkerProcess]:
    process = WorkerProcess(run, patience_s=patience_s)
    try:
        yield process
    finally:
        process.end()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_batch_is_answered_in_its_order_with_what_went_wrong_beside() -> None:
    with worker() as process:
        answers = process.ask([words("a"), words("fail"), words("b", 5_000_000)])
        assert [result for result, _ in answers] == ["A", None, "B"]
        assert [bool(problem) for _, problem in answers] == [False, True, False]
        assert "a rule that fails" in answers[1][1]
        assert process.ask([words("again")]) == [("AGAIN", "")]


def test_a_worker_that_can_not_be_started_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LONGER_THAN_LINUX_TAKES", "x" * 256 * 1024)
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Argument list too long") as caught:
        WorkerProcess(run)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert caught.traceback  # its frames hold what would else have closed itself


def test_what_a_rule_prints_is_taken_for_no_result() -> None:
    with worker() as process:
        assert process.ask([words("print")]) == [("PRINT", "")]


def test_signals_that_a_terminal_or_a_service_manager_sends_do_not_end_it() -> None:
    with worker() as process:
        assert process.ask([words("a")]) == [("A", "")]
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
        assert process.ask([words("b")]) == [("B", "")]


def test_a_rule_that_never_ends_is_given_up() -> None:
    with worker(patience_s=0.5) as process, pytest.raises(WorkerLost):
        process.ask([words("hang")])
    assert not is_alive(process.pid)


def test_a_worker_imports_no_more_than_comparing_needs() -> None:
    code = (
        "import sys\n"
        "import coalmine_router.observer.comparison.compare_worker\n"
        "import coalmine_router.observer.comparison.job\n"
        "assert not {'grpc', 'torch', 'asyncio', 'structlog'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def compared(size: int) -> ComparisonJob:
    logits = np.linspace(0, 1, size, dtype=np.float32)
    changed = logits.copy()
    changed[size // 2] += 1
    bodies = (response_body(logits=logits), response_body(logits=changed), b"no message")
    return ComparisonJob(
        tuple(map(ComparedAnswer, bodies)), ((0, 1), (0, 2), (2, 0)), CompareConfig()
    )


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_worker_finds_what_would_have_been_found_here(size: int) -> None:
    process = WorkerProcess(job.results_of)
    try:
        answers = process.ask([compared(size), compared(size)])
    finally:
        process.end()
    expected = job.results_of(compared(size))
    assert [each.outcome for each in expected.comparisons] == ["mismatch", "mismatch", "skipped"]
    assert answers == [(expected, ""), (expected, "")]


_PARENT = """
import sys, threading
from coalmine_router.observer.comparison.worker_process import WorkerProcess
from tests.doubles.comparing import run, words
process = WorkerProcess(run)
print(process.ask([words("pid")])[0][0], flush=True)
threading.Thread(target=process.ask, args=([words("hang")],), daemon=True).start()
threading.Event().wait()
"""


def test_a_worker_ends_with_its_parent_even_in_the_middle_of_a_rule() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    until(lambda: not is_alive(pid), 10)


async def test_a_process_that_is_killed_costs_its_jobs_and_another_takes_its_place() -> None:
    made: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        made.append(WorkerProcess(run))
        return made[-1]

    async with comparing(start, clock=SystemClock(), processes_max=1) as pool:
        assert await pool.compare(words("die", LARGE)) is None
        assert await pool.compare(words("a", LARGE)) == "A"
        os.kill(made[1].pid, signal.SIGKILL)
        await eventually(lambda: not made[1].is_up)
        assert await pool.compare(words("free", LARGE)) == "FREE"
        counts = pool.counts()
    assert (counts.compared, counts.left_out) == (2, 1)
    assert len(made) == 3
    assert not any(is_alive(each.pid) for each in made)


async def test_a_hundred_jobs_at_once_all_come_back_to_who_brought_them() -> None:
    async with comparing(lambda: WorkerProcess(run), clock=SystemClock()) as pool:
        async with asyncio.TaskGroup() as tasks:
            waiting = {
                f"job {number}": tasks.create_task(pool.compare(words(f"job {number}", LARGE)))
                for number in range(100)
            }
        assert {each.result() for each in waiting.values()} == {each.upper() for each in waiting}
        assert all(task.result() == word.upper() for word, task in waiting.items())
