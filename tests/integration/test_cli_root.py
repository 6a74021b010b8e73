"""The root of the program: what it finds, what it imports, how it fails."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from typer.testing import CliRunner

from coalmine_client.cli.lazy import GROUP, installed_commands
from coalmine_client.cli.root import program

REPORT = """
import json, sys
from coalmine_client.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def invoke(*words: Any, entries: Any = ()) -> Any:
    return CliRunner().invoke(program(entries), words)


ENTRIES = [
    EntryPoint("server", "tests.doubles.sibling:group", GROUP),
    EntryPoint("package", "tests.doubles.sibling:pack", GROUP),
    EntryPoint("router", "not_there:group", GROUP),
]


def test_version_is_that_of_the_distribution() -> None:
    assert invoke("--version").stdout == "coalmine 0.1.0\n"


def test_help_shows_every_command_with_its_line() -> None:
    demo = EntryPoint("demo", "coalmine_demo.command:demo", GROUP)
    words = invoke("--help", entries=[*ENTRIES, demo]).stdout

    for command in ("routes", "status", "weights", "shadow", "history", "mismatches", "infer"):
        assert command in words
    assert "Serve TorchScript models" in words
    assert "Put a TorchScript file into a model repository." in words
    assert "Run the whole thing on this machine" in words


@pytest.mark.parametrize("words", [["--help"], ["routes", "--help"], ["--version"]])
def test_help_imports_neither_server_nor_router_nor_torch(words: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *words], capture_output=True, text=True, check=True
    )

    imported = {name.split(".")[0] for name in json.loads(done.stderr)}
    assert "coalmine_client" in imported
    assert not imported & {"coalmine_server", "coalmine_router", "torch", "sklearn"}
    # What an installation of the client alone has not.
    assert not imported & {"structlog", "uvloop", "prometheus_client"}


def test_the_installed_commands_are_the_siblings_and_the_demo() -> None:
    assert [each.name for each in installed_commands()] == ["server", "package", "router", "demo"]


def test_a_siblings_group_runs_with_its_own_arguments() -> None:
    result = invoke("server", "run", "--port", "7", entries=ENTRIES)

    assert result.stdout == "running on 7\n"


def test_a_siblings_function_is_a_command() -> None:
    result = invoke("package", "m.pt", "--name", "digits", entries=ENTRIES)

    assert result.stdout == "packed m.pt as digits\n"


def test_the_help_of_a_siblings_group_is_its_own() -> None:
    words = invoke("server", "--help", entries=ENTRIES).stdout

    assert "A group." in words
    assert "run" in words


def test_a_package_that_isnt_there_is_one_line_and_exit_code_two() -> None:
    result = invoke("router", "run", entries=ENTRIES)

    assert result.exit_code == 2
    assert result.stderr == (
        "coalmine: router is not installed: No module named 'not_there'; "
        "try: pip install 'coalmine[router]'\n"
    )


def test_a_package_that_lacks_what_an_extra_brings_says_which() -> None:
    result = invoke("server", "run", entries=[EntryPoint("server", "no_torch:server", GROUP)])

    assert result.exit_code == 2
    assert result.stderr == (
        "coalmine: server is not installed: No module named 'no_torch'; "
        "try: pip install 'coalmine[server]'\n"
    )


def test_a_sibling_that_cant_start_is_one_line_and_exit_code_two() -> None:
    result = invoke("server", "fail", "start", entries=ENTRIES)

    assert (result.exit_code, result.stderr) == (2, "coalmine: no such folder\n")


def test_a_failure_is_told_with_its_verb() -> None:
    result = invoke("server", "fail", "other", entries=ENTRIES)

    assert (result.exit_code, result.stderr) == (1, "coalmine: server: it is so\n")


def test_an_interrupt_is_quiet_and_exits_with_130() -> None:
    result = invoke("server", "interrupted", entries=ENTRIES)

    assert (result.exit_code, result.output) == (130, "")


def test_a_misspelt_command_is_wrong_usage_with_a_suggestion() -> None:
    result = invoke("servr", entries=ENTRIES)

    assert result.exit_code == 2
    assert "server" in result.stderr
