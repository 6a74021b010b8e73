"""One repository, one server and one router for all callers that leave the server as it is."""

from collections.abc import Iterator
from pathlib import Path

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
