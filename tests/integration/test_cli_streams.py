"""The program's end where its streams are closed, its reader is gone, or Ctrl-C comes early."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "coalmine_client"]

# Ctrl-C while the named module is imported.
EARLY = """
import sys
early = sys.argv[1]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == early:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from coalmine_client.cli import main
sys.argv = ["coalmine", "router", "check", "x"]
main()
"""


def ran(command: list[str], **options: Any) -> tuple[int, str]:
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **options)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("module", ["typer", "grpc", "coalmine_client.cli.root", "coalmine_router"])
def test_an_interrupt_while_the_program_starts_is_quiet_and_130(module: str) -> None:
    assert ran([sys.executable, "-c", EARLY, module]) == (130, "")


@pytest.mark.parametrize("verb", ["--help", "routes --help", "--version"])
def test_a_full_disk_is_one_line_and_exit_code_1(verb: str) -> None:
    with Path("/dev/full").open("w") as full:
        code, said = ran([*PROGRAM, *verb.split()], stdout=full)

    assert code == 1
    assert said == "coalmine: the output can't be written: no space left on device\n"


@pytest.mark.parametrize("verb", ["--help", "router --help", "--version"])
def test_a_reader_that_is_gone_is_quiet_and_exit_code_1(verb: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert ran([*PROGRAM, *verb.split()], stdout=writer) == (1, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed: str) -> None:
    line = f'"$0" -m coalmine_client traces nowhere {closed}'
    code, said = ran(["sh", "-c", line, sys.executable], stdout=subprocess.DEVNULL)

    assert code == 2
    assert "Traceback" not in said
