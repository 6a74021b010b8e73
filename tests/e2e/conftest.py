"""The digits models, trained and packaged once, and a server for them that all tests share."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coalmine_demo.heldout import HeldOut, load_heldout
from tests.doubles.processes import Started, started


@dataclass(frozen=True)
class Digits:
    """Where the models are, and what each answers for the held-out images by local torch."""

    repository: Path
    training: Path
    held_out: HeldOut


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    training, repository = folder / "training", folder / "models"
    made = [sys.executable, "-m", "coalmine_demo.models", str(training), str(repository)]
    subprocess.run(made, check=True, timeout=110)
    return Digits(repository, training, load_heldout(training))


@pytest.fixture(scope="session")
def server(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("server")
    with started(*server_arguments(digits), folder=folder) as running:
        yield running


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Yield the address of a host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def server_arguments(digits: Digits) -> list[str]:
    return [
        *("server", "run", "--model-repository", str(digits.repository)),
        *("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"),
    ]
