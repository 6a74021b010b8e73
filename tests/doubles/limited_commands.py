"""Commands under real limits: a full or read-only disk, files too large, no right to read all."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.needs import lack, require

COALMINE = (sys.executable, "-m", "coalmine_client")
_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
# What lets root read files that nobody may read.
_MAY_READ_ALL = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def on_a_disk(
    place: Path, options: str, *words: str | Path, then: str = "true"
) -> subprocess.CompletedProcess[str]:
    """Run `coalmine WORDS`, then a shell's command, while a small disk of its own is at `place`."""
    require("unshare")
    place.mkdir(parents=True, exist_ok=True)
    mount = f"mount -t tmpfs -o {options} none {place}"
    if _run([*_OWN_MOUNTS, "sh", "-c", mount]).returncode:
        lack("unshare", "there is no right to mount here")
    script = f'{mount} && {{ "$@"; code=$?; {then}; exit $code; }}'
    return _run([*_OWN_MOUNTS, "sh", "-c", script, "sh", *COALMINE, *words])


def with_files_up_to(kib: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `coalmine WORDS`, which can't write a file larger than `kib`."""
    return _run(["bash", "-c", f'ulimit -f {kib}; exec "$@"', "bash", *COALMINE, *words])


def as_anybody(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `coalmine WORDS`, which can read no more than a file's mode says, even for root."""
    if os.geteuid() != 0:
        return _run([*COALMINE, *words])
    require("setpriv")
    return _run([*_MAY_READ_ALL, *COALMINE, *words])


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=90, check=False
    )
