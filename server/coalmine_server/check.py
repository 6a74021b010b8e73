"""A repository tried out without serving it: config, bytes, load, warm-up, version by version."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from coalmine.errors import StartError
from coalmine_server.repository import Model, Repository, VersionFile
from coalmine_server.runtime.execution import open_program
from coalmine_server.runtime.program import Runtime
from coalmine_server.signature import Signature, TensorSpec


@dataclass(frozen=True, slots=True)
class Finding:
    """One version; `problem` is empty where it can be served."""

    model: str
    version: int
    inputs: str
    outputs: str
    sha256: str  # verified, or missing
    problem: str

    @property
    def is_good(self) -> bool:
        """Whether it can be served."""
        return not self.problem

    def row(self) -> dict[str, object]:
        """Return the finding for JSON."""
        return {**asdict(self), "ok": self.is_good}


def findings_in(repository: Repository, runtime: Runtime) -> Iterator[Finding]:
    """Try every version that would be served. Raises StartError where a folder can't be read."""
    for model in repository.models():
        for file in model.versions:
            yield _tried(model, file, runtime)


def _tried(model: Model, file: VersionFile, runtime: Runtime) -> Finding:
    signature = Signature.of(model.name, file.version, model.config)
    return Finding(
        model=model.name,
        version=file.version,
        inputs=_listed(signature.inputs),
        outputs=_listed(signature.outputs),
        sha256="verified" if file.sha256 else "missing",
        problem=_problem(model, file, signature, runtime),
    )


def _problem(model: Model, file: VersionFile, signature: Signature, runtime: Runtime) -> str:
    try:
        open_program(runtime, signature, model.config, file.read(), source=file.path)
    except StartError as error:
        return str(error)
    return ""


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{each.name} {each}" for each in specs)
