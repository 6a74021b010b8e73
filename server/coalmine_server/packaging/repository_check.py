"""A repository tried out without serving it: config, bytes, load, warm-up, version by version."""

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
class Finding:
    """One version; `problem` is empty where it can be served.

    Where a whole model can't be read, there is one finding of it, without a version. `unserved`
    says why a folder isn't served at all, and `folder` names one that is no version's.
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
    def is_good(self) -> bool:
        """Whether it can be served."""
        return not self.problem

    @property
    def label(self) -> str:
        """How lines for people name it."""
        if self.version is not None:
            return f"{self.model} version {self.version}"
        return f"{self.model}/{self.folder}" if self.folder else self.model

    @property
    def origin(self) -> str:
        """The source's file and commit, with a + where files differed from it."""
        commit = self.provenance.get("git_commit", "")[:_COMMIT_SHOWN]
        dirty = "+" if self.provenance.get("git_dirty") == "true" else ""
        return f"{self.provenance.get('source', '')} {commit}{dirty}".strip()

    def row(self) -> dict[str, object]:
        """Return the finding for JSON."""
        return {**asdict(self), "ok": self.is_good}


def findings_in(repository: Repository, runtime: Runtime) -> Iterator[Finding]:
    """Try every version that would be served, and tell of the folders that would not be.

    Raises StartError where there is no model at all.
    """
    names = repository.names()
    if not names:
        raise StartError(repository.nothing_there)
    for name in names:
        try:
            model = repository.model(name)
        except StartError as error:
            yield Finding(name, problem=str(error))
            continue
        for folder, version, why in repository.unserved(model):
            yield Finding(name, version, folder=folder, unserved=why)
        for file in model.versions:
            yield _tried(model, file, runtime)
    for name in repository.ignored():
        yield Finding(name, unserved="it has no config.yaml, and no model can have such a name")


def _tried(model: Model, file: VersionFile, runtime: Runtime) -> Finding:
    signature = Signature.of(model.name, file.version, model.config)
    known = Finding(
        model.name,
        file.version,
        tuple(label for label, number in model.config.labels.items() if number == file.version),
        _listed(signature.inputs),
        _listed(signature.outputs),
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
        warnings=tuple(_doubts(file, data)),
    )
    try:
        with printing_as(model=model.name, version=file.version):
            open_program(runtime, signature, model.config, data, source=file.path).close()
    except StartError as error:
        return replace(read, problem=str(error))
    return read


def _doubts(file: VersionFile, data: bytes) -> Iterator[str]:
    if file.sha256 is None:
        yield f"no sha256 in {CONFIG_FILE}: any file would be served"
    said = file.properties.get("model_sha256")
    if said is not None and said != (file.sha256 or hashlib.sha256(data).hexdigest()):
        yield f"{PROVENANCE_FILE} tells of another file"


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{each.name} {each}" for each in specs)
