"""One repository and one server for all groups of callers that leave the server as it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.processes import Started
from tests.doubles.server_process import server_of, written


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("tests.conformance.repository", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with server_of(repository, tmp_path_factory.mktemp("server")) as running:
        yield running
