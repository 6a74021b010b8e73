import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from coalmine.errors import StartError
from coalmine_server.packaging.origin import commit_of, origin_of, tree_sha256
from tests.needs import require

NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")


def git(folder: Path, *words: str) -> str:
    require("git")
    done = subprocess.run(
        ["git", *NOBODY, "-C", folder, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a commit."""
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / "train.py").write_text("print('trained')\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_clean_folder_has_its_commit(tree: Path) -> None:
    assert commit_of(tree) == {"git_commit": git(tree, "rev-parse", "HEAD"), "git_dirty": "false"}


def test_a_changed_file_makes_it_dirty_and_a_new_one_does_not(tree: Path) -> None:
    (tree / "model.pt").write_bytes(b"not tracked")
    assert commit_of(tree)["git_dirty"] == "false"
    (tree / "train.py").write_text("print('otherwise')\n")
    assert commit_of(tree)["git_dirty"] == "true"


def test_a_folder_inside_the_tree_has_the_trees_commit(tree: Path) -> None:
    (tree / "out").mkdir()
    assert commit_of(tree / "out")["git_commit"] == git(tree, "rev-parse", "HEAD")


def test_a_folder_without_a_commit_says_nothing(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) == {}


def test_without_git_nothing_is_said(tree: Path) -> None:
    assert commit_of(tree, git="/nowhere/git") == {}


def test_a_git_that_does_not_answer_is_not_waited_for(tree: Path, tmp_path: Path) -> None:
    hanging = tmp_path / "git"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    assert commit_of(tree, git=str(hanging), wait_s=0.05) == {}


def test_a_program_that_a_folders_configuration_names_is_not_run(tree: Path) -> None:
    hook = tree / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tree}/was-run\n")
    hook.chmod(0o755)
    git(tree, "config", "core.fsmonitor", str(hook))
    assert commit_of(tree)["git_dirty"] == "false"
    assert not (tree / "was-run").exists()


# ---------------------------------------------------------------- the digest of a tree


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


FILES = {"b.py": "b", "a/z.py": "z", "a.py": "a", "a b.txt": "", "é.py": "e"}
BY_HAND = (
    "find . -name .git -prune -o -name __pycache__ -prune -o -type f -print0 "
    "| LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
)


def test_the_digest_is_what_sha256sum_says(tree: Path) -> None:
    write(tree, {**FILES, "__pycache__/a.pyc": "compiled"})
    done = subprocess.run(BY_HAND, shell=True, cwd=tree, capture_output=True, text=True, check=True)
    assert tree_sha256(tree) == done.stdout.split()[0]


def test_what_git_and_python_leave_behind_does_not_count(tmp_path: Path) -> None:
    digest = tree_sha256(write(tmp_path, FILES))
    assert tree_sha256(write(tmp_path, {".git/HEAD": "x", "a/__pycache__/z.pyc": "x"})) == digest


@pytest.mark.parametrize("files", [{"a.py": "other"}, {"new.py": ""}, {"a/b.py": "b"}])
def test_another_content_name_or_file_is_another_digest(
    tmp_path: Path, files: dict[str, str]
) -> None:
    digest = tree_sha256(write(tmp_path, FILES))
    assert tree_sha256(write(tmp_path, files)) != digest


def test_links_and_pipes_are_left_alone(tmp_path: Path) -> None:
    digest = tree_sha256(write(tmp_path, FILES))
    (tmp_path / "up").symlink_to(tmp_path.parent)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert tree_sha256(tmp_path) == digest


def test_a_tree_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere: no such file or directory$"):
        tree_sha256(tmp_path / "nowhere")


# ---------------------------------------------------------------- all of it


def test_the_origin_says_when_by_what_and_from_where(tree: Path) -> None:
    source = write(tree, {"out/model.pt": "m"}) / "out" / "model.pt"
    found = origin_of(source, tree, now_ns=1_700_000_000_999_999_999, git="git")
    assert found == {
        "coalmine": version("coalmine"),
        "python": found["python"],
        "torch": version("torch"),
        "packaged_at": "2023-11-14T22:13:20Z",
        "source": "model.pt",
        "source_sha256": tree_sha256(tree),
        "git_commit": git(tree, "rev-parse", "HEAD"),
        "git_dirty": "false",
    }


def test_without_a_tree_the_commit_is_that_of_the_files_folder(tree: Path, tmp_path: Path) -> None:
    source = write(tree, {"model.pt": "m"}) / "model.pt"
    (tmp_path / "link.pt").symlink_to(source)
    found = origin_of(tmp_path / "link.pt", None, now_ns=0, git="git")
    assert found["git_commit"] == git(tree, "rev-parse", "HEAD")
    assert "source_sha256" not in found
