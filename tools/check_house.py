"""Checks two rules that no linter knows. Run it in the repository's root.

Each file has its place in an exhaustive import contract, and each module that calls itself Pure is
among those that contract 5 holds to it. Prints a line for each problem, and then exits with 1.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

# Folders that packages lie in. The folder of the demo comes first: it lies within another.
_FOLDERS: Final = ("examples/demo", "examples", "protos", "server", "router", "clients")
_NOT_OURS: Final = {"node_modules", "target"}
_PURE: Final = re.compile(r"\bPure\b")
_PURE_CONTRACT: Final = "5."


def problems(root: Path) -> list[str]:
    """Return a line for each file of the repository at `root` that breaks a rule."""
    linter = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    files = [path.relative_to(root) for folder in _FOLDERS[1:] for path in _files(root / folder)]
    return [*without_place(files, linter), *only_called_pure(root, files, linter)]


def without_place(files: Iterable[Path], linter: Mapping[str, Any]) -> list[str]:
    """Return a line for each file that no exhaustive import contract names."""
    places = {*linter["root_packages"], *_places(linter["contracts"])}
    return [
        f"{path}: an exhaustive import contract in pyproject.toml must name its place"
        for path in files
        if module_of(path) not in places
    ]


def only_called_pure(root: Path, files: Iterable[Path], linter: Mapping[str, Any]) -> list[str]:
    """Return a line for each module whose docstring says Pure, and that contract 5 doesn't hold."""
    held: set[str] = set()
    for contract in linter["contracts"]:
        if contract["name"].startswith(_PURE_CONTRACT):
            held.update(contract["source_modules"])
    return [
        f"{path}: says Pure, so contract 5 in pyproject.toml must list it"
        for path in files
        if _PURE.search(_docstring(root / path)) and module_of(path) not in held
    ]


def module_of(path: Path) -> str:
    """Return the dotted name of the module in a file, given from the repository's root."""
    folder = next(each for each in _FOLDERS if path.is_relative_to(each))
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if not _NOT_OURS & set(path.parts))


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _places(contracts: Iterable[Mapping[str, Any]]) -> set[str]:
    return {
        f"{package}.{name}"
        for contract in contracts
        if contract.get("exhaustive")
        for package in contract["containers"]
        for layer in contract["layers"]
        for name in re.findall(r"\w+", layer)
    }


if __name__ == "__main__":
    found = problems(Path.cwd())
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
