import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from coalmine_server.cli import package, server
from tests.models import Lies, Linear, scripted, write_model

runner = CliRunner()
packaging = typer.Typer()
packaging.command("package")(package)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_model(tmp_path, "digits", {1: Linear()}).parent


def test_check_shows_a_good_repository_and_exits_0(root: Path) -> None:
    done = runner.invoke(server, ["check", str(root)])
    assert done.exit_code == 0
    assert "digits" in done.stdout
    assert "ready" in done.stdout


def test_check_as_json_says_the_same(root: Path) -> None:
    done = runner.invoke(server, ["check", str(root), "--json"])
    assert json.loads(done.stdout) == [
        {
            "model": "digits",
            "version": 1,
            "inputs": "pixels FP32 [-1, 64]",
            "outputs": "logits FP32 [-1, 10]",
            "sha256": "verified",
            "problem": "",
            "ok": True,
        }
    ]


def test_check_goes_on_to_the_good_ones_and_exits_2(root: Path) -> None:
    write_model(root, "bad", {1: Lies()})
    (root / "digits" / "1" / "model.pt").write_bytes(b"tampered")
    write_model(root, "fine", {1: Linear()})
    done = runner.invoke(server, ["check", str(root), "--json"])
    assert done.exit_code == 2
    assert [row["ok"] for row in json.loads(done.stdout)] == [False, False, True]
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("coalmine: ")]
    assert "output 'logits' is declared FP32 [1, 10], the model gave FP32 [1, 9]" in line
    assert line.endswith("(and 1 more)")


def test_check_of_a_wrong_config_is_one_line_and_exits_2(root: Path) -> None:
    (root / "digits" / "config.yaml").write_text("platform: pytorch_torchscript\nmax_batch: 3\n")
    done = runner.invoke(server, ["check", str(root)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"coalmine: {root}/digits/config.yaml: ")
    assert len(done.stderr.splitlines()) == 1


def test_package_puts_a_version_that_check_accepts(tmp_path: Path) -> None:
    (tmp_path / "linear.pt").write_bytes(scripted(Linear()))
    arguments = [str(tmp_path / "linear.pt"), "--repository", str(tmp_path / "models")]
    arguments += ["--name", "digits", "--version", "2", "--max-batch-size", "32"]
    arguments += ["--input", "pixels:FP32:[64]", "--output", "logits:FP32:[10]"]
    done = runner.invoke(packaging, arguments)
    assert done.exit_code == 0, done.stderr
    assert "models/digits/2/model.pt sha256 " in done.stdout
    assert runner.invoke(server, ["check", str(tmp_path / "models")]).exit_code == 0
    again = runner.invoke(packaging, arguments)
    assert again.exit_code == 2
    assert again.stderr.startswith("coalmine: ")
    assert "is there already" in again.stderr


def test_package_refuses_what_the_module_does_not_do(tmp_path: Path) -> None:
    (tmp_path / "lies.pt").write_bytes(scripted(Lies()))
    arguments = [str(tmp_path / "lies.pt"), "--repository", str(tmp_path / "models")]
    arguments += ["--name", "digits", "--version", "1", "--max-batch-size", "0"]
    arguments += ["--input", "pixels:FP32:[1,64]", "--output", "logits:FP32:[1,10]"]
    done = runner.invoke(packaging, arguments)
    assert done.exit_code == 2
    assert "the model gave FP32 [1, 9]" in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_wrong_grace_is_one_line_and_exits_2(root: Path) -> None:
    done = runner.invoke(server, ["run", "--model-repository", str(root), "--grace", "soon"])
    assert done.exit_code == 2
    assert done.stderr.startswith("coalmine: --grace: expected a duration such as 200ms")


NO_TORCH = """
import sys
sys.modules["torch"] = None
import typer
from coalmine_server.cli import package, server
app = typer.Typer()
app.add_typer(server)
app.command("package")(package)
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["server", "run", "--model-repository", "."],
        ["server", "check", "."],
        ["package", "x.pt", "--repository", ".", "--name", "a", "--version", "1"],
    ],
)
def test_without_torch_the_verbs_say_what_to_install(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "coalmine: torch is not installed; pip install 'coalmine[server]'\n"


def test_the_verbs_are_there_without_importing_torch() -> None:
    code = "import sys, coalmine_server.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
