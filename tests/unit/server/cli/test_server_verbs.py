import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

from coalmine.command_line.failure import VerbGroup
from coalmine_server.cli.server_verbs import package, server
from tests.models import Lies, Linear, Raises, config, scripted, write_model

runner = CliRunner()
packaging = typer.Typer(cls=VerbGroup)
packaging.add_typer(server)
packaging.command("package")(package)


class Centred(nn.Module):
    """[64] -> [10], less what the batch has on average: answers depend on who else asks."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, :10] - pixels[:, :10].mean(0, keepdim=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_model(tmp_path, "digits", {1: Linear()}).parent


def lines_of(stderr: str) -> list[str]:
    """Return what is said to people: the log beside it is for machines."""
    return [line for line in stderr.splitlines() if line.startswith("coalmine: ")]


# ---------------------------------------------------------------- check


def test_check_shows_a_good_repository_and_exits_0(root: Path) -> None:
    done = runner.invoke(server, ["check", str(root)], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    assert all(word in done.stdout for word in ("digits", "FP32 [-1, 64]", "verified", "ready"))
    assert lines_of(done.stderr) == []


def test_check_as_json_says_the_same(root: Path) -> None:
    provenance = {"source": "digits.pt", "owner": "vision"}
    (root / "digits" / "1" / "provenance.json").write_text(json.dumps(provenance))
    with (root / "digits" / "config.yaml").open("a") as config:
        config.write("labels: {stable: 1, best: 1}\n")
    done = runner.invoke(server, ["check", str(root), "--json"])
    assert json.loads(done.stdout) == [
        {
            "model": "digits",
            "version": 1,
            "labels": ["stable", "best"],
            "inputs": "pixels FP32 [-1, 64]",
            "outputs": "logits FP32 [-1, 10]",
            "sha256": "verified",
            "provenance": provenance,
            "warnings": [],
            "problem": "",
            "folder": "",
            "unserved": "",
            "ok": True,
        }
    ]


def test_check_lists_the_folders_that_are_not_served_and_says_why(root: Path) -> None:
    write_model(
        root, "many", {1: Linear(), 2: Linear(), 3: Linear()}, config(versions={"latest": 2})
    )
    (root / "many" / "v4").mkdir()
    (root / "not a model").mkdir()
    done = runner.invoke(server, ["check", str(root), "--json"])
    assert done.exit_code == 0
    unserved = {
        (row["model"], row["version"], row["folder"]): row["unserved"]
        for row in json.loads(done.stdout)
        if row["unserved"]
    }
    assert unserved == {
        ("many", 1, "1"): "'versions' in config.yaml serves only 2, 3",
        ("many", None, "v4"): "its name is not a version, a positive integer",
        ("not a model", None, ""): "it has no config.yaml, and no model can have such a name",
    }
    lines = lines_of(done.stderr)
    first = "coalmine: warning: many version 1: not served: 'versions' in config.yaml serves only"
    assert lines[0] == f"{first} 2, 3"
    shown = runner.invoke(server, ["check", str(root)], env={"COLUMNS": "200"}).stdout
    assert shown.count("not served") == 3


def test_check_shows_where_versions_come_from_as_nothing_but_text(root: Path) -> None:
    provenance = {"source": "[red]\x1b[31mm.pt", "git_commit": "0123456789", "git_dirty": "true"}
    (root / "digits" / "1" / "provenance.json").write_text(json.dumps(provenance))
    done = runner.invoke(server, ["check", str(root)], env={"COLUMNS": "200"})
    assert "[red]\N{REPLACEMENT CHARACTER}[31mm.pt 0123456+" in done.stdout
    assert "\x1b" not in done.stdout


def test_check_lists_every_problem_in_order_and_exits_2(root: Path) -> None:
    write_model(root, "lies", {1: Lies()})
    write_model(root, "wrong", {1: Linear()})
    (root / "wrong" / "config.yaml").write_text("platform: pytorch_torchscript\nmax_batch: 3\n")
    write_model(root, "bad name", {1: Linear()})
    (root / "digits" / "1" / "model.pt").write_bytes(b"tampered")
    write_model(root, "fine", {1: Linear()})
    done = runner.invoke(server, ["check", str(root), "--json"])
    assert done.exit_code == 2
    rows = json.loads(done.stdout)
    assert [(row["model"], row["version"], row["ok"]) for row in rows] == [
        ("bad name", None, False),
        ("digits", 1, False),
        ("fine", 1, True),
        ("lies", 1, False),
        ("wrong", None, False),
    ]
    lines = lines_of(done.stderr)
    assert [line.removeprefix("coalmine: ") for line in lines] == [
        row["problem"] for row in rows if not row["ok"]
    ]
    assert "bad name: a model's name is made of" in lines[0]
    assert "expected sha256" in lines[1]
    assert "output 'logits' is declared FP32 [1, 10], the model gave FP32 [1, 9]" in lines[2]


def test_check_warns_of_what_is_not_sure_and_exits_0(root: Path) -> None:
    config = root / "digits" / "config.yaml"
    config.write_text(config.read_text().partition("sha256:")[0])
    (root / "digits" / "1" / "provenance.json").write_text('{"model_sha256": "of another"}')
    done = runner.invoke(server, ["check", str(root)])
    assert done.exit_code == 0
    assert "missing" in done.stdout
    unsure, other = lines_of(done.stderr)
    assert unsure.endswith("digits version 1: no sha256 in config.yaml: any file would be served")
    assert other == "coalmine: warning: digits version 1: provenance.json tells of another file"


def test_check_of_a_repository_without_a_model_is_one_line_and_exits_2(tmp_path: Path) -> None:
    done = runner.invoke(server, ["check", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr == f"coalmine: model repository {tmp_path}: no NAME/config.yaml in it\n"


# ---------------------------------------------------------------- package

SIGNATURE = ("--input", "pixels:FP32:[64]", "--output", "logits:FP32:[10]")


class Shop:
    """Packages modules by the command line."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self._file = folder / "module.pt"

    def package(self, module: nn.Module, *words: str, rows: int = 32) -> Any:
        self._file.write_bytes(scripted(module))
        place = ("--repository", str(self.root), "--name", "digits", "--version", "2")
        size = ("--max-batch-size", str(rows))
        return runner.invoke(
            packaging, ["package", str(self._file), *place, *size, *SIGNATURE, *words]
        )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_package_puts_a_version_that_check_accepts(shop: Shop) -> None:
    done = shop.package(Linear())
    assert done.exit_code == 0, done.stderr
    path = shop.root / "digits" / "2" / "model.pt"
    assert done.stdout == f"{path} sha256 {sha256(path.read_bytes()).hexdigest()}\n"
    assert runner.invoke(server, ["check", str(shop.root)]).exit_code == 0
    again = shop.package(Linear())
    assert again.exit_code == 2
    assert again.stderr == f"coalmine: {path.parent}: is there already; take a new number\n"


def test_package_as_json_says_where_what_and_from_where(shop: Shop) -> None:
    words = ("--label", "stable", "--label", "best", "--metadata", "run=17", "--json")
    done = shop.package(Linear(), *words)
    said = json.loads(done.stdout)
    assert said["path"] == str(shop.root / "digits" / "2" / "model.pt")
    assert (said["model"], said["version"], said["labels"]) == ("digits", 2, ["stable", "best"])
    assert said["provenance"]["model_sha256"] == said["sha256"]
    assert said["provenance"]["run"] == "17"
    assert said["warnings"] == []
    [row] = json.loads(runner.invoke(server, ["check", str(shop.root), "--json"]).stdout)
    assert (row["labels"], row["provenance"]) == (["stable", "best"], said["provenance"])


def test_package_refuses_what_the_module_does_not_do(shop: Shop) -> None:
    done = shop.package(Lies())
    assert done.exit_code == 2
    assert "the model gave FP32 [1, 9]" in done.stderr
    assert not shop.root.exists()


def test_package_refuses_a_module_that_mixes_rows_unless_that_is_meant(shop: Shop) -> None:
    done = shop.package(Centred())
    assert done.exit_code == 2
    [line] = lines_of(done.stderr)
    assert "rows of a batch are not kept apart: output 'logits' of row" in line
    assert shop.package(Centred(), "--allow-row-mixing").exit_code == 0


def test_package_warns_of_a_module_that_only_zeros_suit(shop: Shop) -> None:
    done = shop.package(Raises())
    assert done.exit_code == 0
    [line] = lines_of(done.stderr)
    assert line.startswith("coalmine: warning: digits version 2: failed on random values: ")
    assert line.endswith("ValueError: negative pixel; only zeros were tried")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--metadata", "run"), "metadata 'run': expected KEY=VALUE"),
        (("--label", "7"), "labels.7"),
        (("--source", "/nowhere"), "/nowhere: no such file or directory"),
        (("--max-delay", "soon"), "batching.max_delay: expected a duration"),
        (("--latest", "9" * 18), "versions.latest: input should be less than or equal to"),
    ],
)
def test_a_wrong_option_of_package_is_one_line_and_exits_2(
    shop: Shop, words: tuple[str, ...], why: str
) -> None:
    done = shop.package(Linear(), *words)
    assert done.exit_code == 2
    [line] = lines_of(done.stderr)
    assert why in line
    assert not shop.root.exists()


# ---------------------------------------------------------------- run


def test_a_wrong_grace_is_one_line_and_exits_2(root: Path) -> None:
    done = runner.invoke(server, ["run", "--model-repository", str(root), "--grace", "soon"])
    assert done.exit_code == 2
    assert done.stderr.startswith("coalmine: --grace: expected a duration such as 200ms")


NO_TORCH = """
import sys
sys.modules["torch"] = None
import typer
from coalmine.command_line.failure import VerbGroup
from coalmine_server.cli.server_verbs import package, server
app = typer.Typer(cls=VerbGroup)
app.add_typer(server)
app.command("package")(package)
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--keepalive", "600h"), "--keepalive: expected at most 500h, got 600h"),
        (("--max-connection-age", "never"), "--max-connection-age: expected a duration"),
        (("--max-message-mib", "2048"), "a whole number from 1 to 2047, got '2048'"),
        (("--intra-op", "100000"), "a whole number from 1 to 256, got '100000'"),
        (("--max-worker-age", "old"), "--max-worker-age: expected a duration"),
        (("--max-worker-mib", "-1"), "expected a whole number from 0 on"),
        (("--workers", "0"), "expected a whole number from 1 to"),
    ],
)
def test_a_bound_of_the_server_that_nothing_can_keep_is_refused(
    root: Path, words: tuple[str, str], why: str
) -> None:
    done = runner.invoke(server, ["run", "--model-repository", str(root), *words])
    assert done.exit_code == 2
    assert why in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


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
    code = "import sys, coalmine_server.cli.server_verbs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
