import os
from pathlib import Path

import pytest

from coalmine_server.cores import cores

MINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", MINE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("99900000 100000", MINE),
        ("nonsense", MINE),
    ],
)
def test_a_containers_limit_counts_and_never_below_one(
    tmp_path: Path, content: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cores(tmp_path / "cpu.max") == expected


def test_without_a_container_all_cores_are_ours(tmp_path: Path) -> None:
    assert cores(tmp_path / "cpu.max") == MINE
