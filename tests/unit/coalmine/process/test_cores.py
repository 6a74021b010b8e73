import os
from pathlib import Path

import pytest

from coalmine.process.machine import usable_cores

MINE = len(os.sched_getaffinity(0))


class Groups:
    """The control groups of a machine, as files."""

    def __init__(self, folder: Path, own: str) -> None:
        self.root = folder / "cgroup"
        self.own = folder / "own"
        self.own.write_text(own)

    def limit(self, group: str, **files: str) -> None:
        folder = self.root / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("cpu__", "cpu.")).write_text(content)

    @property
    def cores(self) -> int:
        return usable_cores(self.root, self.own)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", MINE),
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("99900000 100000", MINE),
        ("100000 0", MINE),
        ("nonsense", MINE),
    ],
)
def test_a_containers_limit_counts_in_whole_cores_and_never_below_one(
    tmp_path: Path, content: str, expected: int
) -> None:
    groups = Groups(tmp_path, "0::/\n")
    groups.limit("", cpu__max=content)
    assert groups.cores == expected


def test_a_limit_of_any_group_above_counts(tmp_path: Path) -> None:
    groups = Groups(tmp_path, "0::/kube/pod/app\n")
    groups.limit("kube/pod/app", cpu__max="max 100000")
    groups.limit("kube/pod", cpu__max="100000 100000")
    groups.limit("kube", cpu__max="400000 100000")
    assert groups.cores == 1


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", MINE), ("100000", 1), ("1", 1), ("900000000", MINE), ("", MINE)]
)
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_a_limit_of_version_1_counts(
    tmp_path: Path, quota: str, folder: str, expected: int
) -> None:
    groups = Groups(tmp_path, f"5:memory:/app\n4:{folder}:/app\n0::/other\n")
    groups.limit(f"{folder}/app", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert groups.cores == expected


def test_a_container_that_sees_its_own_group_as_the_root_finds_its_limit(tmp_path: Path) -> None:
    groups = Groups(tmp_path, "4:cpu,cpuacct:/docker/0123456789\n")
    groups.limit("cpu", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert groups.cores == 1


def test_a_group_that_leads_out_of_the_tree_is_left_alone(tmp_path: Path) -> None:
    groups = Groups(tmp_path, "0::/../../outside\n")
    groups.limit("", cpu__max="max 100000")
    assert groups.cores == MINE


def test_without_a_container_all_cores_are_ours(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == MINE
