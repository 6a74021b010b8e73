"""Versions that come and go while requests are answered: no request may notice."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.tensors import decode_outputs
from tests.doubles.load import Load
from tests.doubles.processes import Started, started
from tests.doubles.server_rig import OPTIONS
from tests.models import Linear, config, scripted

PORTS = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
CALLERS = 8
REPLACEMENTS = 20
CYCLES = 50
LARGE_BYTES = 20_000_000


def put(root: Path, number: int, data: bytes) -> None:
    """Make `number` the only version that is served: first the bytes, then their hash."""
    folder = root / "digits"
    (folder / str(number)).mkdir(parents=True, exist_ok=True)
    written = config(versions={"only": [number]}, sha256={str(number): _sha256(data)})
    _replaced(folder / str(number) / "model.pt", data)
    _replaced(folder / "config.yaml", yaml.safe_dump(written).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _replaced(file: Path, data: bytes) -> None:
    beside = file.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(file)


@pytest.fixture(scope="module")
def modules() -> list[bytes]:
    """Modules that tell themselves apart: output 0 of module k, for 64 ones, is 64 k."""
    return [scripted(Linear(scale=float(k))) for k in range(4)]


@pytest.fixture
def root(tmp_path: Path, modules: list[bytes]) -> Path:
    put(tmp_path / "models", 1, modules[1])
    return tmp_path / "models"


@contextlib.contextmanager
def server(root: Path, *options: str) -> Iterator[Started]:
    asked: tuple[str | Path, ...] = ("--model-repository", root, *PORTS, *options)
    with started("server", "run", *asked, folder=root.parent) as running:
        yield running


def sight(answer: pb.ModelInferResponse) -> tuple[str, int]:
    """Return the version that answered, and the number of its module."""
    return answer.model_version, int(decode_outputs(answer)[0].array[0, 0]) // 64


@contextlib.asynccontextmanager
async def load(address: str) -> AsyncIterator[tuple[Load, Any]]:
    """Call from several connections until the block ends; yield the load, and a stub beside it."""
    made = Load(address, sight=sight)
    async with (
        grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
        made.running(connections=2, callers=CALLERS),
    ):
        yield made, pb_grpc.GRPCInferenceServiceStub(channel)


async def test_twenty_replacements_under_load_fail_no_request(
    root: Path, modules: list[bytes]
) -> None:
    """Every other one is a new version, every other one the same version with other bytes."""
    with server(root, "--allow-load") as running:
        async with load(running.address("grpc")) as (made, stub):
            await made.until_seen(("1", 1))
            for number in range(2, REPLACEMENTS + 2):
                version, module = (number + 1) // 2, 2 + number % 2
                put(root, version, modules[module])
                await stub.RepositoryModelLoad(
                    pb.RepositoryModelLoadRequest(model_name="digits"), timeout=30
                )
                await made.until_seen((str(version), module))
    assert made.failures == {}
    assert len(made.seen) == REPLACEMENTS + 1


async def test_what_is_changed_on_disk_is_served_without_being_told(
    root: Path, modules: list[bytes]
) -> None:
    with server(root, "--poll", "50ms") as running:
        async with load(running.address("grpc")) as (made, _):
            await made.until_seen(("1", 1))
            put(root, 2, modules[2])
            await made.until_seen(("2", 2))
            broken = root / "digits" / "3"
            broken.mkdir()
            (broken / "model.pt").write_bytes(modules[3][:1000])  # half of it, and no hash so far
            put(root, 4, modules[3])
            await made.until_seen(("4", 3))
    assert made.failures == {}


async def test_a_load_that_fails_fails_no_request_and_says_why(
    root: Path, modules: list[bytes]
) -> None:
    with server(root, "--allow-load") as running:
        async with load(running.address("grpc")) as (made, stub):
            await made.until_seen(("1", 1))
            put(root, 2, modules[2][:1000])
            asked = pb.RepositoryModelLoadRequest(model_name="digits")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.RepositoryModelLoad(asked, timeout=30)
            index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "not a TorchScript file" in (refused.value.details() or "")
    rows = {each.version: (each.state, each.reason) for each in index.models}
    assert rows["1"][0] == "READY"
    assert rows["2"][0] == "UNAVAILABLE"
    assert "not a TorchScript file" in rows["2"][1]
    assert made.failures == {}
    assert set(made.seen) == {("1", 1)}


async def test_memory_comes_back_after_fifty_loads_and_unloads(root: Path) -> None:
    with server(root, "--allow-load") as running:
        _large(root)
        async with grpc.aio.insecure_channel(running.address("grpc"), options=OPTIONS) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            for cycle in range(CYCLES):
                await stub.RepositoryModelLoad(
                    pb.RepositoryModelLoadRequest(model_name="large"), timeout=30
                )
                await stub.RepositoryModelUnload(
                    pb.RepositoryModelUnloadRequest(model_name="large"), timeout=30
                )
                if cycle == 4:
                    settled = _rss(running.pid)
        grown = _rss(running.pid) - settled
    # What is free stays by whole blocks, up to 64 MiB; a leak would be fifteen times as much.
    assert grown < 4 * LARGE_BYTES, f"45 cycles of {LARGE_BYTES} bytes kept {grown}"


def _large(root: Path) -> None:
    module = Linear()
    module.register_buffer("weight", _rows(LARGE_BYTES // 4))
    data = scripted(module)
    (root / "large" / "1").mkdir(parents=True)
    (root / "large" / "1" / "model.pt").write_bytes(data)
    written = config(sha256={"1": _sha256(data)})
    (root / "large" / "config.yaml").write_text(yaml.safe_dump(written))


def _rows(count: int) -> Any:
    import torch  # noqa: PLC0415 - this test alone needs it

    return torch.from_numpy(np.random.default_rng(1).random(count, np.float32))


def _rss(pid: int) -> int:
    line = next(
        each
        for each in Path(f"/proc/{pid}/status").read_text().splitlines()
        if each.startswith("VmRSS:")
    )
    return int(line.split()[1]) * 1024
