"""Programs in other languages, built once and run: the list's runners, and the clients' examples.

`python -m tests.conformance.runners` builds all that this machine can build, ahead of the tests.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.conformance.javascript import PACKAGES, node
from tests.needs import WHY_NOT, lack

_ROOT: Final = Path(__file__).parents[2]
_HERE: Final = _ROOT / "tests" / "conformance"
CLIENTS: Final = _ROOT / "clients"
_BUILT: Final = _HERE / ".build"
_BUILD_S: Final = 900.0
_EXAMPLE_S: Final = 60.0
# Others work on this machine while a compiler runs.
_NICELY: Final = ("nice", "-n", "10")


class NotBuilt(Exception):
    """A program can't be built here; its text ends with what the tool said last."""


class Runner:
    """A running runner: a call in, what it told out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, call: Mapping[str, Any]) -> Any:
        self.begin(call)
        return self.told()

    def begin(self, call: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(call)}\n")
        self._process.stdin.flush()

    def told(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the runner ended with {self._process.wait()}"
        return json.loads(line)


@contextmanager
def running(language: str, address: str) -> Iterator[Runner]:
    """Run the list's runner of a language, until the block ends."""
    process = subprocess.Popen(
        [*_command(language, "runner"), address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
        cwd=_ROOT,
    )
    try:
        yield Runner(process)
    finally:
        process.kill()
        process.communicate()


def example(
    language: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the example of a client in clients/, or Python's, to its end."""
    return subprocess.run(
        [*_command(language, "example"), *arguments],
        capture_output=True,
        text=True,
        timeout=_EXAMPLE_S,
        env={**_environment(), **(environment or {})},
        cwd=_ROOT,
        check=False,
    )


def _command(language: str, program: str) -> Sequence[str | Path]:
    try:
        with _alone():
            return COMMANDS[language](program)
    except NotBuilt as error:
        lack(language, str(error))


def _environment() -> Mapping[str, str]:
    return {**os.environ, "NODE_PATH": str(PACKAGES)}


# ---------------------------------------------------------------- each language


def _python(program: str) -> Sequence[str | Path]:
    modules = {"runner": "listed_calls", "example": "traced"}
    return (sys.executable, "-m", f"tests.conformance.callers.{modules[program]}")


def _node(program: str) -> Sequence[str | Path]:
    files = {"runner": _HERE / "node" / "listed.js", "example": CLIENTS / "node" / "digits.js"}
    return (node(), files[program])


def _go(program: str) -> Sequence[str | Path]:
    folders = {"runner": _HERE / "go", "example": CLIENTS / "go" / "example"}
    built = _BUILT / f"go-{program}"
    # Go itself knows what has changed.
    _build(("go", "build", "-o", built, "."), folders[program])
    return (built,)


def _java(program: str) -> Sequence[str | Path]:
    _build_java()
    folders = {"runner": _HERE / "java" / "runner", "example": CLIENTS / "java" / "example"}
    mains = {"runner": "coalmine.runner.Main", "example": "coalmine.example.Digits"}
    target = folders[program] / "target"
    # An example ends before the better compiler has paid.
    quick = ("-Xshare:auto", *(("-XX:TieredStopAtLevel=1",) if program == "example" else ()))
    return ("java", *quick, "-cp", f"{target}/*:{target}/lib/*", mains[program])


def _build_java() -> None:
    stamp = _BUILT / "java"
    sources = [*_files(CLIENTS / "java"), *_files(_HERE / "java"), *_files(_ROOT / "protos")]
    if stamp.exists() and stamp.stat().st_mtime > max(each.stat().st_mtime for each in sources):
        return
    _build(("mvn", "--batch-mode", "--quiet", "package"), _HERE / "java")
    stamp.touch()


def _files(folder: Path) -> Iterable[Path]:
    endings = {".java", ".xml", ".json", ".proto"}
    return (
        each for each in folder.rglob("*") if each.suffix in endings and "target" not in each.parts
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Have the block to itself, of all processes of this checkout."""
    _BUILT.mkdir(exist_ok=True)
    with (_BUILT / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(
        [*_NICELY, *command],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        cwd=folder,
        check=False,
    )
    if done.returncode:
        raise NotBuilt(f"`{command[0]}` can't build {folder}:\n{done.stdout}{done.stderr}"[-4000:])


COMMANDS: Final[Mapping[str, Callable[[str], Sequence[str | Path]]]] = {
    "python": _python,
    "node": _node,
    "go": _go,
    "java": _java,
}


def build_all() -> None:
    """Build what can be built, with a line each; tests skip, or fail, by what can't."""
    for language in ("go", "java"):
        if reason := WHY_NOT[language]():
            print(f"callers: no programs of {language}: {reason}")
            continue
        print(
            f"callers: building the programs of {language} (a minute on a new machine)", flush=True
        )
        try:
            for program in ("runner", "example"):
                with _alone():
                    COMMANDS[language](program)
        except NotBuilt as error:
            print(f"callers: {error}")


if __name__ == "__main__":
    build_all()
