"""gRPC silently ignores an option that it doesn't know, so each one we set is looked up in it."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_CODE = ("protos", "server", "router", "clients")
_OPTION = re.compile(r"grpc\.[a-z0-9_.]*[a-z0-9]")


def _options(folder: str) -> Iterator[str]:
    """Names of options among the strings of the code; a service's has capitals."""
    for file in (_ROOT / folder).rglob("*.py"):
        if "node_modules" in file.parts or file.stem.endswith(("_pb2", "_pb2_grpc")):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and _OPTION.fullmatch(value):
                yield value


@pytest.fixture(scope="module")
def core() -> bytes:
    found = importlib.import_module("grpc._cython.cygrpc").__file__
    assert found is not None
    return Path(found).read_bytes()


def _knows(core: bytes, option: str) -> bool:
    return option.encode() + b"\0" in core


def test_every_option_of_a_channel_or_server_is_one_that_grpc_knows(core: bytes) -> None:
    used = {option for folder in _CODE for option in _options(folder)}
    assert len(used) > 15
    assert [option for option in sorted(used) if not _knows(core, option)] == []


@pytest.mark.parametrize(
    "option",
    ["grpc.http2.min_recv_ping_interval_without_data_ms", "grpc.keepalive_time", "grpc.none"],
)
def test_a_name_that_is_close_to_one_is_not_known(core: bytes, option: str) -> None:
    assert not _knows(core, option)
