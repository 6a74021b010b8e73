"""A server over a broken repository does not start, and leaves nothing running."""

import threading
from pathlib import Path

import pytest

from coalmine.errors import StartError
from coalmine.process.lifecycle import Stop
from coalmine_server.app import Process
from coalmine_server.config import ServerConfig
from tests.doubles.faults import FAULTS, Break, broken


def announced(**addresses: str) -> None:
    raise AssertionError("it announces nothing")


def lines_of(error: BaseException) -> list[str]:
    """Return the texts in a group: what failed did so inside task groups."""
    if isinstance(error, BaseExceptionGroup):
        return [line for each in error.exceptions for line in lines_of(each)]
    return [str(error)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_it_does_not_start_and_says_in_one_line_what_file_is_wrong_and_how(
    tmp_path: Path, fault: Break
) -> None:
    path = broken(tmp_path / "models", "m", fault)
    config = ServerConfig(tmp_path / "models", "127.0.0.1:0", "127.0.0.1:0", grace_s=1)
    told: list[str] = []
    try:
        await Process(config, announced).serve(Stop())
    except* StartError as group:
        told = lines_of(group)
    [line] = told
    assert line.startswith(f"{path}: {FAULTS[fault][1]}")
    assert "\n" not in line
    assert not [each for each in threading.enumerate() if each.name.startswith("m-")]
