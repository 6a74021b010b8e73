"""The supervisor's children, from the file it writes to the metrics of the control process."""

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from coalmine.child_process import Child, Command
from coalmine_router.processes import ProcessFile, ProcessMetrics


def child(name: str, *, restarts: int = 0, failures: int = 0) -> Child:
    made = Child(Command(name, (), ()), 1.0)
    made.restarts, made.failures = restarts, failures
    return made


def page(file: Path, supervisor: int) -> str:
    registry = CollectorRegistry()
    registry.register(ProcessMetrics(file, supervisor))
    return generate_latest(registry).decode()


def test_what_is_noted_is_read(tmp_path: Path) -> None:
    file = tmp_path / "processes.json"
    ProcessFile(file).note([child("control"), child("proxy-0", restarts=3, failures=1)])
    seen = page(file, os.getpid())
    assert 'coalmine_router_process_restarts_total{process="proxy-0"} 3.0' in seen
    assert 'coalmine_router_replacements_failed_total{process="proxy-0"} 1.0' in seen
    assert 'coalmine_router_process_up{process="control"} 0.0' in seen


def test_a_file_that_another_router_left_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "processes.json"
    ProcessFile(file).note([child("proxy-0", restarts=3)])
    assert 'process="' not in page(file, os.getpid() + 1)


@pytest.mark.parametrize("content", [None, "", "{", '{"supervisor": 1}'])
def test_no_file_or_a_torn_one_is_no_sample(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "processes.json"
    if content is not None:
        file.write_text(content)
    assert 'process="' not in page(file, os.getpid())


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    file = tmp_path / "processes.json"
    noted, proxy = ProcessFile(file), child("proxy-0")
    noted.note([proxy])
    file.unlink()
    noted.note([proxy])
    assert not file.exists()
    proxy.restarts += 1
    noted.note([proxy])
    assert file.exists()


def test_a_folder_that_is_gone_harms_nobody_and_is_said(tmp_path: Path) -> None:
    with capture_logs() as logs:
        ProcessFile(tmp_path / "gone" / "processes.json").note([child("proxy-0")])
    assert [each["event"] for each in logs] == ["processes_not_noted"]
    assert list(tmp_path.iterdir()) == []
