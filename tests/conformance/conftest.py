"""One repository, one server and one router for all callers that leave the server as it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.echo import echoing
from tests.conformance.routes import configuration
from tests.doubles.processes import Started
from tests.doubles.router_setup import router as router_of
from tests.doubles.server_process import server_of, written


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("tests.conformance.repository", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with server_of(repository, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def echo() -> Iterator[str]:
    with echoing() as address:
        yield address


@pytest.fixture(scope="session")
def router(
    server: Started, echo: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("router")
    with router_of(configuration(folder, server.address("grpc"), echo)) as running:
        yield running


@pytest.fixture(scope="session", params=["server", "router"])
def address(request: pytest.FixtureRequest) -> str:
    """Return where callers call: the server itself, or the router in front of it."""
    running: Started = request.getfixturevalue(request.param)
    return running.address({"server": "grpc", "router": "data"}[request.param])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what came of the list of calls: a row for each language."""
    rows: dict[str, dict[str, str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, told in getattr(report, "user_properties", ()):
                if name == "called":
                    language, column, text = told
                    rows.setdefault(language, {})[column] = f"{text}{_MARK[outcome]}"
    if rows:
        terminalreporter.section("the list of calls: tests/conformance/calls.yaml")
        for line in _table(rows):
            terminalreporter.write_line(line)


_MARK = {"passed": "", "failed": " FAILED"}


def _table(rows: dict[str, dict[str, str]]) -> Iterator[str]:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [["", *columns]]
    lines += [[name, *(row.get(each, "-") for each in columns)] for name, row in rows.items()]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns) + 1)]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
