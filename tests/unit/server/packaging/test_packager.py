import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coalmine.errors import ModelFailed, StartError
from coalmine_server.packaging.declaration import Declaration
from coalmine_server.packaging.placement import LOCK_FILE, lock_repository
from coalmine_server.repository import Model, Repository
from tests.doubles.package_rig import DECLARED, NOTHING, Desk, FunctionRuntime

ROOT = Path(__file__).parents[4]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def models_of(desk: Desk) -> list[Model]:
    repository = Repository(desk.root)
    return [repository.model(name) for name in repository.names()]


def served(desk: Desk) -> list[bytes]:
    [model] = models_of(desk)
    return [each.read() for each in model.versions]


# ---------------------------------------------------------------- what is put


def test_a_new_model_gets_a_folder_that_the_repository_reads(desk: Desk) -> None:
    done = desk.package(3, Declaration(("x:FP32:[2,-1]",), ("x:FP32:[2,-1]",), 8, "2ms", 2))
    (model,) = models_of(desk)
    assert done.path == desk.root / "m" / "3" / "model.pt"
    assert done.sha256 == sha256(b"a")
    assert model.versions[0].read() == b"a"
    assert model.config.inputs[0].shape == (2, -1)
    assert (model.config.batching.max_delay, model.config.instances) == (2_000_000, 2)
    assert set(desk.content()) == {"m/config.yaml", "m/3/model.pt", "m/3/provenance.json"}


def test_a_second_version_adds_its_hash_and_keeps_the_first(desk: Desk) -> None:
    desk.package(1, data=b"a")
    desk.package(2, NOTHING, data=b"b")
    config = yaml.safe_load(desk.config.read_text())
    assert config["sha256"] == {"1": sha256(b"a"), "2": sha256(b"b")}
    assert served(desk) == [b"a", b"b"]


# ---------------------------------------------------------------- what would be served no more


def test_a_version_that_would_be_served_no_more_is_named_and_nothing_changes(desk: Desk) -> None:
    desk.package(1)
    desk.package(2, NOTHING)
    before = desk.content()
    with pytest.raises(StartError) as refused:
        desk.package(3, NOTHING)
    assert str(refused.value) == (
        f"{desk.config}: version 1 would no longer be served, only 2, 3: --latest 3 serves them "
        "all, --drop goes on"
    )
    assert desk.content() == before


def test_with_drop_it_goes_and_is_warned_of(desk: Desk) -> None:
    desk.package(1, replace(DECLARED, latest=1), data=b"a")
    done = desk.package(2, NOTHING, data=b"b", drop=True)
    assert done.warnings == ("version 1 will no longer be served",)
    assert served(desk) == [b"b"]


def test_latest_widens_what_a_known_model_serves_and_keeps_comments(desk: Desk) -> None:
    desk.package(1, replace(DECLARED, latest=1), data=b"a")
    text = desk.config.read_text()
    desk.config.write_text(f"# ours\n{text}")
    done = desk.package(2, replace(NOTHING, latest=2), data=b"b")
    assert done.warnings == ()
    assert served(desk) == [b"a", b"b"]
    assert desk.config.read_text().startswith("# ours\n")


def test_latest_that_narrows_is_refused_like_any_loss(desk: Desk) -> None:
    for version in (1, 2):
        desk.package(version)
    with pytest.raises(StartError, match="versions 1, 2 would no longer be served, only 3"):
        desk.package(3, replace(NOTHING, latest=1))
    desk.package(3, replace(NOTHING, latest=1), drop=True)
    assert len(served(desk)) == 1


@pytest.mark.parametrize("policy", [{"all": True}, {"only": [1, 2]}])
def test_where_nothing_is_lost_nothing_is_refused(desk: Desk, policy: dict[str, Any]) -> None:
    for version in (1, 2):
        desk.package(version)
    config = yaml.safe_load(desk.config.read_text())
    desk.config.write_text(yaml.safe_dump({**config, "versions": policy}))
    desk.package(3)
    assert len(served(desk)) == (3 if policy.get("all") else 2)


def test_another_policy_becomes_latest_where_it_is_asked_for(desk: Desk) -> None:
    for version in (1, 2):
        desk.package(version)
    config = yaml.safe_load(desk.config.read_text())
    desk.config.write_text(yaml.safe_dump({**config, "versions": {"only": [1]}}))
    desk.package(3, replace(NOTHING, latest=3))
    assert len(served(desk)) == 3


def test_a_version_that_nobody_will_serve_earns_a_warning(desk: Desk) -> None:
    desk.package(2, replace(DECLARED, latest=1), data=b"b")
    [warning] = desk.package(1, NOTHING).warnings
    assert warning == f"version 1 is not served: 'versions' in {desk.config} asks for 2"


def test_comments_in_a_config_outlive_a_new_version(desk: Desk) -> None:
    desk.package(1)
    text = desk.config.read_text()
    desk.config.write_text("# owned by the vision team\n" + text + "instances: 1  # small\n")
    desk.package(2, labels=("stable",))
    assert desk.config.read_text().startswith("# owned by the vision team\n")
    assert "instances: 1  # small\n" in desk.config.read_text()


def test_labels_lead_to_the_new_version_and_move_where_they_are_taken(desk: Desk) -> None:
    desk.package(1, labels=("stable", "canary"))
    desk.package(2, NOTHING, labels=("canary",))
    [model] = models_of(desk)
    assert model.config.labels == {"stable": 1, "canary": 2}


def test_the_provenance_says_what_was_packaged_and_reaches_the_repository(desk: Desk) -> None:
    desk.root.parent.joinpath("training").mkdir()
    done = desk.package(1, metadata={"run": "17"}, source_tree=desk.root.parent / "training")
    [model] = models_of(desk)
    assert model.versions[0].properties == done.provenance
    assert done.provenance["model_sha256"] == done.sha256
    assert done.provenance["model_bytes"] == "1"
    assert done.provenance["run"] == "17"
    assert done.provenance["packaged_at"] == "2023-11-14T22:13:20Z"
    assert done.provenance["source_sha256"] == sha256(b"")
    assert json.loads((done.path.parent / "provenance.json").read_text()) == done.provenance


def test_what_takes_long_is_said_while_it_does(desk: Desk) -> None:
    desk.package(1)
    assert desk.progress == [
        f"reading {desk.source}",
        "loading and warming up model 'm' version 1",
        "trying model 'm' version 1 on random values",
        f"writing {desk.root}/m/1",
    ]


# ---------------------------------------------------------------- the trial


def test_one_row_and_the_most_are_run_even_where_the_warm_up_leaves_them_out(desk: Desk) -> None:
    desk.package(1)
    with desk.config.open("a") as file:
        file.write("warmup: {batch_sizes: [4], runs: 1}\n")
    desk.package(2, NOTHING)
    assert desk.runtime.programs[1].runs[:3] == [(4, 2), (1, 2), (8, 2)]


def test_a_file_that_does_not_run_as_declared_is_refused(desk: Desk) -> None:
    def fails(_: object) -> Any:
        raise ModelFailed("ValueError: poison")

    desk.runtime = FunctionRuntime(fails)
    assert desk.refusal() == (
        f"{desk.source}: model 'm' version 1: failed on zeros, 'x' FP32 [1, 2]: ValueError: poison"
    )


def test_a_file_that_is_no_model_is_refused(desk: Desk) -> None:
    assert desk.refusal(data=b"broken") == f"{desk.source}: not a model"


def test_a_model_that_mixes_rows_is_refused_unless_that_is_meant(desk: Desk) -> None:
    desk.runtime = FunctionRuntime(lambda x: x - x.mean(0))
    assert desk.refusal() == (
        f"{desk.source}: model 'm' version 1: rows of a batch are not kept apart: output 'x' of "
        "row 2 differs by 1 of the largest value from what the row gives alone; batches would mix "
        "callers: mend the model, package it as one of its own (another --name, with "
        "--max-batch-size 0), or --allow-row-mixing"
    )
    done = desk.package(1, allow_row_mixing=True)
    assert done.provenance["row_mixing"].startswith("rows of a batch are not kept apart")


def test_a_model_that_zeros_alone_suit_is_taken_with_a_warning(desk: Desk) -> None:
    def picky(x: Any) -> Any:
        if np.any(x):
            raise ModelFailed("ValueError: no such token")
        return x

    desk.runtime = FunctionRuntime(picky)
    [warning] = desk.package(1).warnings
    assert "failed on random values" in warning


# ---------------------------------------------------------------- what is refused


def test_a_version_is_never_overwritten(desk: Desk) -> None:
    desk.package(1)
    assert desk.refusal(1).endswith("/m/1: is there already; take a new number")


def test_a_signature_that_the_other_versions_do_not_have_is_refused(desk: Desk) -> None:
    desk.package(1)
    other = Declaration(("x:FP64:[2]",), ("x:FP32:[2]",), 8)
    assert "config.yaml: inputs: expected x:FP32:[2], got x:FP64:[2]" in desk.refusal(2, other)


def test_a_label_that_would_lead_to_a_version_no_longer_served_is_refused(desk: Desk) -> None:
    desk.package(1, labels=("stable",))
    desk.package(2, NOTHING)
    assert desk.refusal(3, NOTHING).endswith(
        "config.yaml: labels.stable: leads to version 1, but 'versions' serves only 2, 3"
    )
    desk.package(3, NOTHING, labels=("stable",), drop=True)


def test_a_label_is_checked_as_a_config_is(desk: Desk) -> None:
    assert "labels.7" in desk.refusal(labels=("7",))


def test_a_declaration_is_checked_as_a_config_is(desk: Desk) -> None:
    wrong = Declaration(("x:FP31:[2]",), ("x:FP32:[2]",), 8)
    assert "inputs.0.datatype: expected one of BOOL" in desk.refusal(1, wrong)


@pytest.mark.parametrize("name", ["..", "a/b", "../m", ".m", ""])
def test_a_name_that_leads_elsewhere_is_refused(desk: Desk, name: str) -> None:
    assert "is not a model's name" in desk.refusal(name=name)


def test_a_link_that_leads_elsewhere_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    desk.root.mkdir()
    (desk.root / "m").symlink_to(tmp_path / "outside")
    assert "leads out of the repository" in desk.refusal()


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_is_a_positive_number(desk: Desk, version: int) -> None:
    assert "expected a positive integer" in desk.refusal(version)


def test_a_source_that_is_no_file_is_refused_and_not_waited_for(desk: Desk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("nowhere.pt", "nowhere.pt: no such file or directory"),
        ("pipe", "pipe: not a regular file"),
        ("", "not a regular file"),
    ):
        with pytest.raises(StartError, match=f"{why}$"):
            desk.packager().package(replace(desk.order(), source=tmp_path / name))
    assert not desk.root.exists()


# ---------------------------------------------------------------- others at the same time


def test_two_at_the_same_time_lose_no_hash(desk: Desk) -> None:
    both_tried = threading.Barrier(2)
    desk.source.write_bytes(b"a")
    failures: list[Exception] = []

    def package(version: int) -> None:
        waits = threading.Event()

        def meet(x: Any) -> Any:
            if not waits.is_set():
                waits.set()
                both_tried.wait(10)  # each has read the config before the other has written it
            return x

        desk_of_one = Desk(desk.root.parent)
        desk_of_one.runtime = FunctionRuntime(meet)
        try:
            packager = desk_of_one.packager()
            packager.package(desk_of_one.order(version))
        except StartError as error:
            failures.append(error)

    threads = [threading.Thread(target=package, args=(version,)) for version in (1, 2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert failures == []
    assert set(yaml.safe_load(desk.config.read_text())["sha256"]) == {"1", "2"}
    assert served(desk) == [b"a", b"a"]


def test_two_of_the_same_number_give_one_version_and_one_refusal(desk: Desk) -> None:
    def package_it_meanwhile(x: Any) -> Any:
        if not (desk.root / "m").exists():
            other.package(1, data=b"first")
        return x

    other = Desk(desk.root.parent)
    desk.runtime = FunctionRuntime(package_it_meanwhile)
    with pytest.raises(StartError, match="is there already"):
        desk.package(1, data=b"second")
    assert served(desk) == [b"first"]


def test_a_config_that_changed_under_the_trial_is_not_overwritten(desk: Desk) -> None:
    def edit(x: Any) -> Any:
        desk.config.write_text(desk.config.read_text().replace("size: 8", "size: 4"))
        return x

    desk.package(1)
    desk.runtime = FunctionRuntime(edit)
    with pytest.raises(StartError, match=r"config.yaml: changed while the model was tried"):
        desk.package(2, NOTHING)
    assert "max_batch_size: 4" in desk.config.read_text()
    assert not (desk.root / "m" / "2").exists()


def test_who_holds_the_repository_is_waited_for_only_so_long(desk: Desk) -> None:
    desk.root.mkdir()
    with lock_repository(desk.root, wait_s=1):
        assert f"somebody else has been changing it for 0.1 s (holds {LOCK_FILE})" in desk.refusal()


# ---------------------------------------------------------------- killed in between

KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from tests.doubles.package_rig import DECLARED, Desk

folder, others = Path(sys.argv[1]), int(sys.argv[2])
CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock"}

def package(desk, step):
    steps = itertools.count(1)

    def kill_at_the_step(event, arguments):
        if event in CHANGES and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    desk.source.write_bytes(b"new")
    packager = desk.packager()
    sys.addaudithook(kill_at_the_step)
    packager.package(desk.order(9, labels=("next",)))

for step in itertools.count(1):
    desk = Desk(folder / str(step))
    desk.source.parent.mkdir()
    for version in range(others):
        desk.package(version + 1, DECLARED, data=b"old")
    child = os.fork()
    if child == 0:
        package(desk, step)
        os._exit(0)
    if os.WIFEXITED(os.waitpid(child, 0)[1]):
        break
print(step)
"""


def killed_at_each_step(folder: Path, others: int) -> list[Desk]:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(others)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Desk(folder / str(step)) for step in range(1, int(done.stdout) + 1)]


@pytest.mark.parametrize("others", [0, 1])
def test_wherever_one_is_killed_a_repository_is_whole_and_the_next_one_clears_up(
    tmp_path: Path, others: int
) -> None:
    desks = killed_at_each_step(tmp_path, others)
    assert len(desks) > 10
    seen = [served(desk) if (desk.root / "m").exists() else [] for desk in desks]
    assert seen == sorted(seen, key=len), "once it is there it stays, and is all there"
    assert seen[0] == [b"old"] * others
    assert seen[-1] == [b"old"] * others + [b"new"]
    for desk in desks:
        if not (desk.root / "m" / "9").exists():
            desk.package(9, data=b"new", labels=("next",))
            assert served(desk) == seen[-1]
            assert {each.name for each in desk.root.iterdir()} == {"m", LOCK_FILE}
