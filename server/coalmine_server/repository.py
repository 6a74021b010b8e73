"""The model repository: folders, versions, which of them are served, and their exact bytes."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from coalmine import config_file
from coalmine.errors import StartError
from coalmine_server.config import ModelConfig, VersionPolicy

_log = structlog.get_logger(__name__)

CONFIG_FILE: Final = "config.yaml"
MODEL_FILE: Final = "model.pt"

_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]+")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


def is_name(text: str) -> bool:
    """Return whether `text` can be a model's name; one with a dot in front is nobody's folder."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class VersionFile:
    """One version's file, and what its bytes must hash to; None: not declared."""

    model: str
    version: int
    path: Path
    sha256: str | None

    def read(self) -> bytes:
        """Return the file's bytes: the very ones that were checked.

        Raises StartError where they can't be read or are not those of the config.
        """
        if self.path.is_fifo():  # opening it could wait for ever, and a stop for that
            raise StartError(f"{self.path}: not a regular file")
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise StartError(f"{self.path}: {(error.strerror or str(error)).lower()}") from None
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
    """A folder of models: NAME/config.yaml and NAME/VERSION/model.pt."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def models(self) -> list[Model]:
        """Return all models by name. Raises StartError for the first thing that is wrong."""
        if not self._root.is_dir():
            raise StartError(f"model repository {self._root}: not a folder")
        found = [self.model(name) for name in sorted(self._names())]
        if not found:
            raise StartError(f"model repository {self._root}: no NAME/{CONFIG_FILE} in it")
        return found

    def model(self, name: str) -> Model:
        """Return one model. Raises StartError."""
        folder = self._contained(self._root / name)
        config = config_file.load(self._contained(folder / CONFIG_FILE), ModelConfig)
        present = sorted(_versions_in(folder))
        if not present:
            raise StartError(f"{folder}: no VERSION/{MODEL_FILE} in it")
        served = _served(folder, config.versions, present)
        return Model(name, config, tuple(self._file(name, each, config) for each in served))

    def _names(self) -> Iterator[str]:
        for entry in self._root.iterdir():
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if is_name(entry.name):
                yield entry.name
            elif (entry / CONFIG_FILE).exists():
                raise StartError(f"{entry}: a model's name is made of A-Z, a-z, 0-9, . _ and -")
            else:
                _log.warning("folder_ignored", folder=str(entry))  # such as lost+found

    def _file(self, name: str, version: int, config: ModelConfig) -> VersionFile:
        path = self._contained(self._root / name / str(version) / MODEL_FILE)
        return VersionFile(name, version, path, config.sha256.get(str(version)))

    def _contained(self, path: Path) -> Path:
        """Return `path`. Raises StartError where its links lead out of the repository."""
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise StartError(f"{path}: leads out of the repository, to {path.resolve()}")
        return path


def _versions_in(folder: Path) -> Iterator[int]:
    for entry in folder.iterdir():
        if entry.is_dir() and _VERSION.fullmatch(entry.name):
            yield int(entry.name)


def _served(folder: Path, policy: VersionPolicy, present: list[int]) -> list[int]:
    if policy.all:
        return present
    if policy.only is not None:
        missing = sorted(set(policy.only) - set(present))
        if missing:
            raise StartError(
                f"{folder / CONFIG_FILE}: versions.only: there is no version {missing[0]}, "
                f"only {', '.join(map(str, present))}"
            )
        return sorted(set(policy.only))
    return present[-(policy.latest or 1) :]
