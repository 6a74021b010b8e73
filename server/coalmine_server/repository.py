"""The model repository: its folders, its versions, those that are served, and their bytes."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from coalmine.errors import StartError, reason_of
from coalmine.process import config_file
from coalmine_server import provenance
from coalmine_server.config import ModelConfig, VersionPolicy

_log = structlog.get_logger(__name__)

CONFIG_FILE: Final = "config.yaml"
MODEL_FILE: Final = "model.pt"

# Path, time of change, size and inode of each of a model's files.
Stamp = tuple[tuple[str, int, int, int], ...]

_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,255}")  # as long as a folder's may be
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


def is_name(text: str) -> bool:
    """Return whether `text` can be a model's name; a folder with a dot in front is no model."""
    return _NAME.fullmatch(text) is not None


def real_path(path: Path) -> Path:
    """Return where a path's links lead; a link to itself leads to itself, and opening it fails."""
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for such a link


@dataclass(frozen=True, slots=True)
class VersionFile:
    """One version's file, and what its bytes must hash to; None: not declared."""

    model: str
    version: int
    path: Path
    sha256: str | None
    properties: Mapping[str, str] = field(default_factory=dict, compare=False)  # its provenance

    def read(self) -> bytes:
        """Return the file's bytes: the very ones that were checked.

        Raises StartError where they can't be read or are not those of the config.
        """
        with _raising_start_error(self.path):
            data = _check_not_fifo(self.path).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if self.sha256 is None:
            _log.warning("model_without_sha256", model=self.model, version=self.version)
        elif found != self.sha256:
            raise StartError(
                f"{self.path}: expected sha256 {self.sha256}, as in {CONFIG_FILE}, got {found}"
            )
        return data


@dataclass(frozen=True, slots=True)
class Model:
    """One model's folder: its config, and the versions that its policy serves, in order."""

    name: str
    config: ModelConfig
    versions: tuple[VersionFile, ...]


class Repository:
    """A folder of models: NAME/config.yaml and NAME/VERSION/model.pt.

    `hashed_only` ignores a version without a sha256 in the config: so a reader takes a version only
    after all of it has been written.
    """

    def __init__(self, root: Path, *, hashed_only: bool = False) -> None:
        self._root = root
        self._hashed_only = hashed_only

    def names(self) -> list[str]:
        """Return the models' names, in order; also one that `model` refuses.

        Raises StartError where the folder isn't one.
        """
        with _raising_start_error(self._root):
            if not self._root.is_dir():
                raise StartError(f"model repository {self._root}: not a folder")
            folders = {each: _may_be_model(each) for each in _folders_in(self._root)}
        for folder, may_be_model in folders.items():
            if not may_be_model:
                _log.warning("folder_ignored", folder=str(folder))  # such as lost+found
        return sorted(each.name for each, may_be_model in folders.items() if may_be_model)

    def has_model(self, name: str) -> bool:
        """Return whether there is a folder for such a model."""
        return (self._root / name).is_dir()

    @property
    def empty_error_text(self) -> str:
        """The error of a repository without a model."""
        return f"model repository {self._root}: no NAME/{CONFIG_FILE} in it"

    def stamps(self) -> dict[str, Stamp]:
        """Return each model's stamp, which changes with any of its files. Raises StartError."""
        return {name: tuple(_file_stamps(self._root / name)) for name in self.names()}

    def model(self, name: str) -> Model:
        """Return one model. Raises StartError."""
        if not is_name(name):
            raise StartError(
                f"{self._root / name}: a model's name is made of A-Z, a-z, 0-9, . _ and -"
            )
        with _raising_start_error(self._root / name):  # such as a folder that goes away meanwhile
            return self._read_model(name)

    def ignored_folders(self) -> list[str]:
        """Return the folders, in order, that can't be models. Raises StartError."""
        with _raising_start_error(self._root):
            return sorted(each.name for each in _folders_in(self._root) if not _may_be_model(each))

    def unserved_folders(self, model: Model) -> Iterator[tuple[str, int | None, str]]:
        """Return each folder of a model that isn't served: its name, version if any, and why."""
        served = [each.version for each in model.versions]
        with _raising_start_error(self._root / model.name):
            names = sorted(each.name for each in _folders_in(self._root / model.name))
        for name in names:
            version = int(name) if _VERSION.fullmatch(name) else None
            if version is None:
                yield name, None, "its name is not a version, a positive integer"
            elif version not in served:
                yield name, version, f"'versions' in {CONFIG_FILE} serves only {_numbers(served)}"

    def _read_model(self, name: str) -> Model:
        folder = self._check_inside(self._root / name)
        config = config_file.load(
            _check_not_fifo(self._check_inside(folder / CONFIG_FILE)), ModelConfig
        )
        there = sorted(self._present_versions(folder, config))
        if not there:
            hashed = " with a sha256" if self._hashed_only else ""
            raise StartError(f"{folder}: no VERSION/{MODEL_FILE}{hashed} in it")
        served = served_versions(folder, config, there)
        return Model(name, config, tuple(self._version_file(name, each, config) for each in served))

    def _present_versions(self, folder: Path, config: ModelConfig) -> Iterator[int]:
        for version in versions_in(folder):
            if str(version) in config.sha256 or not self._hashed_only:
                yield version

    def _version_file(self, name: str, version: int, config: ModelConfig) -> VersionFile:
        path = self._check_inside(self._root / name / str(version) / MODEL_FILE)
        sha256 = config.sha256.get(str(version))
        return VersionFile(name, version, path, sha256, provenance.load_properties(path.parent))

    def _check_inside(self, path: Path) -> Path:
        """Return `path`. Raises StartError where its links lead out of the repository."""
        place = real_path(path)
        if not place.is_relative_to(real_path(self._root)):
            raise StartError(f"{path}: leads out of the repository, to {place}")
        return path


@contextlib.contextmanager
def _raising_start_error(path: Path) -> Iterator[None]:
    """Turn an OSError of a path, or of what is in it, into a StartError of one line."""
    try:
        yield
    except OSError as error:
        raise StartError(f"{error.filename or path}: {reason_of(error)}") from None


def _folders_in(place: Path) -> Iterator[Path]:
    """Return the folders in a place, but for hidden ones."""
    for entry in place.iterdir():
        if not entry.name.startswith(".") and entry.is_dir():
            yield entry


def _may_be_model(folder: Path) -> bool:
    return is_name(folder.name) or (folder / CONFIG_FILE).exists()


def _check_not_fifo(path: Path) -> Path:
    """Return `path`. Raises StartError for a FIFO: to open it could wait, and a stop for that."""
    if path.is_fifo():
        raise StartError(f"{path}: not a regular file")
    return path


def _file_stamps(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    files = (folder / CONFIG_FILE, *sorted(folder.glob(f"*/{MODEL_FILE}")))
    for file in files:
        with contextlib.suppress(OSError):  # its load will say why; the other models go on
            found = file.stat()
            yield str(file), found.st_mtime_ns, found.st_size, found.st_ino


def versions_in(folder: Path) -> Iterator[int]:
    """Return the numbers that a model's folder has, served or not."""
    for entry in folder.iterdir():
        if entry.is_dir() and _VERSION.fullmatch(entry.name):
            yield int(entry.name)


def served_versions(folder: Path, config: ModelConfig, there: Sequence[int]) -> list[int]:
    """Return which of the versions that are there are served, in order.

    Raises StartError where a version that the policy names, or a label leads to, is missing.
    """
    served = _versions_by_policy(folder, config.versions, there)
    for label, number in config.labels.items():
        if number not in served:
            raise StartError(
                f"{folder / CONFIG_FILE}: labels.{label}: leads to version {number}, but "
                f"'versions' serves only {_numbers(served)}"
            )
    return served


def _versions_by_policy(folder: Path, policy: VersionPolicy, there: Sequence[int]) -> list[int]:
    if policy.all:
        return list(there)
    if policy.only is not None:
        missing = sorted(set(policy.only) - set(there))
        if missing:
            raise StartError(
                f"{folder / CONFIG_FILE}: versions.only: there is no version {missing[0]}, "
                f"only {_numbers(there)}"
            )
        return sorted(set(policy.only))
    return list(there[-(policy.latest or 1) :])


def _numbers(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions))
