"""A small disk, seen by the processes that are started inside: filled, read-only, and mended."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.needs import lack, require

_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


@dataclass(frozen=True)
class SmallDisk:
    """A file system of 4 MiB at `place`, in a mount namespace of its own; `here` leads to it."""

    place: Path
    holder: int

    @property
    def here(self) -> Path:
        return Path(f"/proc/{self.holder}/root{self.place}")

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command is put behind to run where the disk is."""
        return ("nsenter", f"--target={self.holder}", "--user", "--mount", "--preserve-credentials")

    def fill(self) -> None:
        """Leave no byte of room."""
        with (self.here / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4_096))

    def free(self) -> None:
        (self.here / "ballast").unlink()

    def remount(self, option: str) -> None:
        """Mount it again, `ro` or `rw`."""
        command = [*self.inside, "mount", "-o", f"remount,{option}", str(self.place)]
        subprocess.run(command, check=True, timeout=30)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    """Yield a disk at `place`, where this machine lets one be made."""
    require("unshare")
    place.mkdir(parents=True, exist_ok=True)
    script = f"mount -t tmpfs -o size=4m none {place} && echo mounted && exec sleep 600"
    with subprocess.Popen(
        [*_OWN_MOUNTS, "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "mounted\n":
                lack("unshare", "there is no right to mount here")
            yield SmallDisk(place, holder.pid)
        finally:
            holder.kill()
