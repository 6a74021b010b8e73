"""The check of a repository without serving it: config, bytes, load and warm-up of each version."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from coalmine.errors import StartError
from coalmine.process.output_capture import printing_as
from coalmine_server.provenance import PROVENANCE_FILE
from coalmine_server.repository import CONFIG_FILE, Model, Repository, VersionFile
from coalmine_server.runtime.execution import open_program
from coalmine_server.runtime.program import Runtime
from coalmine_server.signature import Signature, TensorSpec

_COMMIT_SHOWN: Final = 7


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """The check of one version; `problem` is empty where it can be served.

    A model that can't be read has one check without a version. `unserved` says why a folder isn't
    served at all, and `folder` names it.
    """

    model: str
    version: int | None = None
    labels: tuple[str, ...] = ()
    inputs: str = ""
    outputs: str = ""
    sha256: str = ""  # verified, missing, or unknown
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problem: str = ""
    folder: str = ""
    unserved: str = ""

    @property
    def is_servable(self) -> bool:
        """Whether it can be served."""
        return not self.problem

    @property
    def label(self) -> str:
        """Its name in lines for people."""
        if self.version is not None:
            return f"{self.model} version {self.version}"
        return f"{self.model}/{self.folder}" if self.folder else self.model

    @property
    def origin(self) -> str:
        """The source's file and commit, with a + where files differed from it."""
        commit = self.provenance.get("git_commit", "")[:_COMMIT_SHOWN]
        dirty = "+" if self.provenance.get("git_dirty") == "true" else ""
        return f"{self.provenance.get('source', '')} {commit}{dirty}".strip()

    def json_row(self) -> dict[str, object]:
        """Return the check for JSON."""
        return {**asdict(self), "ok": self.is_servable}


def check_repository(repository: Repository, runtime: Runtime) -> list[VersionCheck]:
    """Try every version that would be served, and list the folders that would not be.

    Raises StartError where there is no model at all.
    """
    names = repository.names()
    if not names:
        raise StartError(repository.empty_error_text)
    checks = [check for name in names for check in _check_model(repository, name, runtime)]
    why = "it has no config.yaml, and no model can have such a name"
    return checks + [VersionCheck(name, unserved=why) for name in repository.ignored_folders()]


def _check_model(repository: Repository, name: str, runtime: Runtime) -> list[VersionCheck]:
    try:
        model = repository.model(name)
    except StartError as error:
        return [VersionCheck(name, problem=str(error))]
    unserved = [
        VersionCheck(name, version, folder=folder, unserved=why)
        for folder, version, why in repository.unserved_folders(model)
    ]
    return unserved + [_try_version(model, file, runtime) for file in model.versions]


def _try_version(model: Model, file: VersionFile, runtime: Runtime) -> VersionCheck:
    signature = Signature.of(model.name, file.version, model.config)
    known = VersionCheck(
        model.name,
        file.version,
        tuple(label for label, number in model.config.labels.items() if number == file.version),
        _specs_text(signature.inputs),
        _specs_text(signature.outputs),
        "unknown",
        file.properties,
    )
    try:
        data = file.read()
    except StartError as error:
        return replace(known, problem=str(error))
    read = replace(
        known,
        sha256="verified" if file.sha256 else "missing",
        warnings=tuple(_warnings_of(file, data)),
    )
    try:
        with printing_as(model=model.name, version=file.version):
            open_program(runtime, signature, model.config, data, source=file.path).close()
    except StartError as error:
        return replace(read, problem=str(error))
    return read


def _warnings_of(file: VersionFile, data: bytes) -> Iterator[str]:
    if file.sha256 is None:
        yield f"no sha256 in {CONFIG_FILE}: any file would be served"
    said = file.properties.get("model_sha256")
    if said is not None and said != (file.sha256 or hashlib.sha256(data).hexdigest()):
        yield f"{PROVENANCE_FILE} tells of another file"


def _specs_text(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{each.name} {each}" for each in specs)
