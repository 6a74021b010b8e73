"""The origin of a model: the commit of a folder, and the digest of a tree of files."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Final

from coalmine.errors import StartError, reason_of

FILES_MAX: Final = 100_000
_GIT_S: Final = 10.0
_LEFT_OUT: Final = {".git", "__pycache__"}


def origin_of(source: Path, tree: Path | None, *, now_ns: int, git: str) -> dict[str, str]:
    """Return the origin of `source` and the time; `tree` is the folder it was made from.

    Raises StartError where the tree can't be read.
    """
    now = datetime.fromtimestamp(now_ns // 10**9, UTC).replace(tzinfo=None)
    found = {
        "coalmine": _installed_version("coalmine"),
        "python": python_version(),
        "torch": _installed_version("torch"),
        "packaged_at": f"{now.isoformat()}Z",
        "source": source.name,
    }
    if tree is not None:
        found["source_sha256"] = tree_sha256(tree)
    return {**found, **commit_of(tree or source.resolve().parent, git=git)}


def _installed_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def commit_of(folder: Path, *, git: str = "git", wait_s: float = _GIT_S) -> dict[str, str]:
    """Return git_commit and git_dirty; nothing where there is no git, no commit or no answer.

    Dirty: a tracked file differs from the commit. Untracked files don't count.
    """
    commit = _git_output(git, folder, wait_s, "rev-parse", "--verify", "HEAD")
    changed = _git_output(git, folder, wait_s, "status", "--porcelain", "--untracked-files=no")
    if not commit or changed is None:
        return {}
    return {"git_commit": commit.strip(), "git_dirty": "true" if changed.strip() else "false"}


def _git_output(git: str, folder: Path, wait_s: float, *words: str) -> str | None:
    # A folder's own configuration may name a program to ask for changes: it isn't run.
    command = [git, "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=wait_s,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def tree_sha256(folder: Path) -> str:
    """Return a digest of the files in a folder: the sha256 of what `sha256sum` says of each.

    In the order of their paths' bytes, without .git and __pycache__; links are not followed. The
    same comes from: find . -name .git -prune -o -name __pycache__ -prune -o -type f -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum. Raises StartError.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(_source_files(folder), key=os.fsencode):
            with (folder / path).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{found}  ./".encode() + os.fsencode(path) + b"\n")
    except OSError as error:
        raise StartError(f"{error.filename}: {reason_of(error)}") from None
    return digest.hexdigest()


def _source_files(folder: Path) -> Iterator[str]:
    count = 0
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [each for each in folders if each not in _LEFT_OUT]
        for name in files:
            path = Path(place, name)
            if path.is_symlink() or not path.is_file() or name in _LEFT_OUT:
                continue
            count += 1
            if count > FILES_MAX:
                raise StartError(f"{folder}: over {FILES_MAX} files; name a smaller --source")
            yield os.path.relpath(path, folder)


def _raise(error: OSError) -> None:
    raise error
