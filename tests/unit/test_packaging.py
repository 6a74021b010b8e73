"""What pyproject.toml promises about versions and entry points is so."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())
GENERATED = sorted((ROOT / "protos").rglob("*_pb2*.py"))

PROTOBUF_FLOOR = re.compile(r"^# Protobuf Python Version: (\S+)$", re.MULTILINE)
GRPC_FLOOR = re.compile(r"^GRPC_GENERATED_VERSION = '(\S+)'$", re.MULTILINE)


EXTRAS: Any = PYPROJECT["project"]["optional-dependencies"]
NEEDED = [*PYPROJECT["project"]["dependencies"], *EXTRAS["serving"], *EXTRAS["router"]]

# Fails for an import of what only routers and servers need, then imports all of the client's.
CLIENT_ALONE = """
import importlib, pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import coalmine_client.client, coalmine_client.cli as cli
for each in pkgutil.iter_modules(cli.__path__, "coalmine_client.cli."):
    importlib.import_module(each.name)
for name in coalmine_client.__all__:
    getattr(coalmine_client, name)
"""
NOT_FOR_CALLING = (
    "dns scipy uvloop opentelemetry pydantic yaml structlog prometheus_client grpc_health "
    "grpc_reflection torch"
)


def floor_of(name: str) -> Version:
    """Return the lowest version that pyproject.toml allows of a dependency."""
    requirements = map(Requirement, NEEDED)
    wanted = next(each for each in requirements if each.name == name)
    return next(Version(each.version) for each in wanted.specifier if each.operator == ">=")


def demanded(pattern: re.Pattern[str]) -> set[Version]:
    """Return the versions that the generated code refuses to run below."""
    return {Version(found) for path in GENERATED for found in pattern.findall(path.read_text())}


def test_there_is_generated_code_of_both_packages() -> None:
    assert {path.name for path in GENERATED} == {
        "inference_pb2.py",
        "inference_pb2_grpc.py",
        "control_pb2.py",
        "control_pb2_grpc.py",
    }


def test_the_floor_of_protobuf_is_that_of_the_generated_code() -> None:
    assert demanded(PROTOBUF_FLOOR) == {floor_of("protobuf")}


@pytest.mark.parametrize("name", ["grpcio", "grpcio-health-checking", "grpcio-reflection"])
def test_the_floors_of_grpc_are_those_of_the_generated_code(name: str) -> None:
    assert demanded(GRPC_FLOOR) == {floor_of(name)}


def test_the_generator_is_pinned_to_the_version_that_the_code_was_made_with() -> None:
    pinned = (ROOT / "tools" / "protos-constraints.txt").read_text()

    (floor,) = demanded(GRPC_FLOOR)
    assert f"grpcio-tools=={floor}" in pinned.splitlines()


def test_what_the_tests_ran_with_is_pinned_and_allowed() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    pins = {canonicalize_name(name): version for name, version in pairs}
    for text in NEEDED:
        requirement = Requirement(text)
        if requirement.name == "coalmine":
            continue
        assert requirement.specifier.contains(
            pins[canonicalize_name(requirement.name)], prereleases=True
        ), text


def test_the_entry_points_are_installed_as_pyproject_says() -> None:
    declared = PYPROJECT["project"]["entry-points"]["coalmine.commands"]

    assert {each.name: each.value for each in entry_points(group="coalmine.commands")} == declared


def test_calling_imports_nothing_that_only_routers_and_servers_need() -> None:
    run = [sys.executable, "-c", CLIENT_ALONE, *NOT_FOR_CALLING.split()]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_what_calling_needs_is_all_that_the_bare_package_brings() -> None:
    names = {Requirement(each).name for each in PYPROJECT["project"]["dependencies"]}

    assert names == {"grpcio", "ml-dtypes", "numpy", "protobuf", "rich", "typer"}


def test_the_images_bring_what_their_commands_need() -> None:
    docker = ROOT / "deploy" / "docker"

    assert '".[router]"' in (docker / "router.Dockerfile").read_text()
    assert "ARG EXTRA=server" in (docker / "server.Dockerfile").read_text()


def test_the_program_is_the_clients_root() -> None:
    assert PYPROJECT["project"]["scripts"] == {"coalmine": "coalmine_client.cli:main"}
