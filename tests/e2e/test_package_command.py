"""`coalmine package` as a process: beside others, on full disks, and what the server then tells."""

import json
import shlex
from pathlib import Path

import grpc
import pytest
import yaml

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine_server.repository import Repository
from tests.doubles.limited_commands import on_a_disk, with_files_up_to
from tests.doubles.processes import begin, ran, started
from tests.models import Mlp, scripted

SIGNATURE = ("--input", "pixels:FP32:[64]", "--output", "logits:FP32:[10]", "--max-batch-size", "8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of 85 kB."""
    path = tmp_path / "mlp.pt"
    path.write_bytes(scripted(Mlp()))
    return path


def words(source: Path, root: Path, version: int = 1) -> tuple[str | Path, ...]:
    place = ("--repository", root, "--name", "digits", "--version", str(version))
    return ("package", source, *place, *SIGNATURE)


def problems(stderr: str) -> list[str]:
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("coalmine: ")]


def test_what_is_packaged_is_served_under_its_labels_with_its_provenance(
    source: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    said = {}
    for version, label in ((1, "stable"), (2, "canary")):
        more = ("--label", label, "--metadata", f"run={version}", "--json")
        done = ran(*words(source, root, version), *more, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert problems(done.stderr) == [], "nothing is said where nobody looks"
        said[label] = json.loads(done.stdout)
    ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with (
        started("server", "run", "--model-repository", root, *ports, folder=tmp_path) as server,
        grpc.insecure_channel(server.address("grpc")) as channel,
    ):
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        for label, packaged in said.items():
            request = pb.ModelMetadataRequest(name="digits", version=label)
            told = dict(stub.ModelMetadata(request, timeout=30).properties)
            assert told == packaged["provenance"]
            assert told["run"] == str(packaged["version"])


def test_three_at_the_same_time_lose_no_version_and_no_hash(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    running = [
        begin(*words(source, root, version), "--latest", "3", folder=tmp_path)
        for version in range(1, 4)
    ]
    codes = [each.process.wait(90) for each in running]
    for each in running:
        assert each.process.stdout is not None
        each.process.stdout.close()
    assert codes == [0] * 3, [each.log.read_text() for each in running]
    config = yaml.safe_load((root / "digits" / "config.yaml").read_text())
    assert set(config["sha256"]) == {"1", "2", "3"}
    [model] = [Repository(root).model(name) for name in Repository(root).names()]
    assert [file.read() for file in model.versions] == [source.read_bytes()] * 3


def test_a_full_disk_is_one_line_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "disk"
    left = f"find {shlex.quote(str(root))} -type f -size +0; df --output=used {root} | tail -1"
    done = on_a_disk(root, "size=64k", *words(source, root), then=left)
    assert done.returncode == 2
    assert problems(done.stderr) == [f"coalmine: {root}/digits: no space left on device"]
    assert done.stdout.split() == ["0"], "no file with anything in it, and no block in use"


def test_a_file_over_the_limit_is_one_line_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    assert ran(*words(source, root), folder=tmp_path).returncode == 0
    before = sorted(each for each in root.rglob("*"))
    done = with_files_up_to(64, *words(source, root, version=2))
    assert done.returncode == 2
    assert problems(done.stderr) == [f"coalmine: {root}/digits: file too large"]
    assert sorted(each for each in root.rglob("*")) == before


def test_a_disk_that_is_read_only_is_one_line(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "disk"
    done = on_a_disk(root, "ro", *words(source, root))
    assert done.returncode == 2
    assert problems(done.stderr) == [f"coalmine: {root}/digits: read-only file system"]
