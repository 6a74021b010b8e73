import hashlib
import os
from pathlib import Path

import pytest
import yaml

from coalmine.errors import StartError
from coalmine_server.packaging.repository_check import check_repository
from coalmine_server.repository import Model, Repository, is_name
from tests.doubles.server_parts import FakeRuntime
from tests.models import config


def model(root: Path, name: str = "digits", *versions: int, **content: object) -> Path:
    """Write a folder whose files hold no module: the repository never loads one."""
    folder = root / name
    hashes = {}
    for number in versions or (1,):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "model.pt").write_bytes(f"{name}{number}".encode())
        hashes[str(number)] = hashlib.sha256(f"{name}{number}".encode()).hexdigest()
    written = {**config(), "sha256": hashes, **content}
    (folder / "config.yaml").write_text(yaml.safe_dump(written))
    return folder


def models(root: Path) -> list[Model]:
    repository = Repository(root)
    return [repository.model(name) for name in repository.names()]


def served(root: Path) -> dict[str, list[int]]:
    return {each.name: [file.version for file in each.versions] for each in models(root)}


def read_all(root: Path) -> list[bytes]:
    return [file.read() for each in models(root) for file in each.versions]


def refusal(root: Path) -> str:
    with pytest.raises(StartError) as refused:
        read_all(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"latest": 2}, [3, 10]),
        ({"latest": 9}, [1, 3, 10]),
        ({"all": True}, [1, 3, 10]),
        ({"only": [3, 1]}, [1, 3]),
    ],
)
def test_the_policy_chooses_versions_by_number(
    tmp_path: Path, policy: dict[str, object], expected: list[int]
) -> None:
    model(tmp_path, "digits", 10, 1, 3, versions=policy)
    assert served(tmp_path) == {"digits": expected}


def test_without_a_policy_the_latest_version_is_served(tmp_path: Path) -> None:
    model(tmp_path, "digits", 1, 2)
    assert served(tmp_path) == {"digits": [2]}


def test_other_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "notes").mkdir()
    (folder / "0").mkdir()
    (folder / "README").touch()
    (tmp_path / ".digits-x1").mkdir()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "README").touch()
    assert served(tmp_path) == {"digits": [1]}


def test_the_bytes_that_were_hashed_are_the_bytes_that_come_back(tmp_path: Path) -> None:
    model(tmp_path)
    assert models(tmp_path)[0].versions[0].read() == b"digits1"


def test_a_version_without_a_hash_is_served(tmp_path: Path) -> None:
    model(tmp_path, sha256={})
    assert models(tmp_path)[0].versions[0].read() == b"digits1"


def test_hashes_may_stand_under_numbers(tmp_path: Path) -> None:
    folder = model(tmp_path)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("'1':", "1:"))
    assert models(tmp_path)[0].versions[0].sha256 is not None


def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "1" / "model.pt").write_bytes(b"tampered")
    text = refusal(tmp_path)
    assert text.startswith(f"{folder}/1/model.pt: expected sha256 ")
    assert hashlib.sha256(b"digits1").hexdigest() in text
    assert hashlib.sha256(b"tampered").hexdigest() in text


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (model(tmp_path) / "1" / "model.pt").unlink()
    assert refusal(tmp_path) == f"{tmp_path}/digits/1/model.pt: no such file or directory"


def test_a_file_that_could_be_read_for_ever_is_refused(tmp_path: Path) -> None:
    file = model(tmp_path) / "1" / "model.pt"
    file.unlink()
    os.mkfifo(file)
    assert refusal(tmp_path) == f"{file}: not a regular file"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"model repository {tmp_path}/nowhere: not a folder"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    empty = Repository(tmp_path)
    with pytest.raises(StartError) as refused:
        check_repository(empty, FakeRuntime())
    assert str(refused.value) == f"model repository {tmp_path}: no NAME/config.yaml in it"


def test_a_model_without_a_config_is_refused(tmp_path: Path) -> None:
    (model(tmp_path) / "config.yaml").unlink()
    assert refusal(tmp_path) == f"{tmp_path}/digits/config.yaml: no such file or directory"


def test_a_model_without_a_version_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "1").rename(folder / "one")
    assert refusal(tmp_path) == f"{folder}: no VERSION/model.pt in it"


def test_a_policy_for_a_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path, versions={"only": [1, 4]})
    assert refusal(tmp_path) == (
        f"{folder}/config.yaml: versions.only: there is no version 4, only 1"
    )


def test_a_name_with_other_characters_is_refused(tmp_path: Path) -> None:
    model(tmp_path, "di gits")
    assert "a model's name is made of" in refusal(tmp_path)


@pytest.mark.parametrize(
    "linked", ["digits", "digits/1", "digits/1/model.pt", "digits/config.yaml"]
)
def test_a_link_out_of_the_repository_is_refused(tmp_path: Path, linked: str) -> None:
    root, outside = tmp_path / "models", tmp_path / "outside"
    model(root)
    (root / linked).rename(outside)
    (root / linked).symlink_to(outside)
    assert "leads out of the repository, to " in refusal(root)


def test_a_link_inside_the_repository_is_followed(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "2").symlink_to(folder / "1")
    assert served(tmp_path) == {"digits": [2]}


@pytest.mark.parametrize("name", ["digits", "a", "A_b-c.9"])
def test_these_are_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a b", "é", "a\n"])
def test_these_are_no_names(name: str) -> None:
    assert not is_name(name)
