"""Models by name and version, as requests find them. Nothing here waits, loads or ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from coalmine.errors import NotFound, Unavailable
from coalmine_server.batching.batcher import Batcher
from coalmine_server.batching.worker import Worker
from coalmine_server.config import ModelConfig
from coalmine_server.figures.statistics import VersionStatistics
from coalmine_server.repository import Model, VersionFile
from coalmine_server.signature import Signature

_DEFAULT: Final = ""
# What a config says of which versions there are, not of how one of them runs.
_OF_THE_MODEL: Final[dict[str, Any]] = {
    "sha256": {},
    "labels": {},
    "versions": None,
    "load_timeout": None,
}


class State(StrEnum):
    """Where a version is in its life."""

    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    GONE = "GONE"
    FAILED = "FAILED"


@dataclass(slots=True, eq=False)
class Version:
    """One version that is, was or is to be served; it has a batcher while it is READY.

    `reason` says why it is FAILED or GONE.
    """

    file: VersionFile
    config: ModelConfig
    signature: Signature
    statistics: VersionStatistics
    state: State = State.LOADING
    reason: str = ""
    batcher: Batcher | None = None
    workers: list[Worker] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.state is State.READY

    def ready_batcher(self) -> Batcher:
        """Return its batcher. Raises Unavailable where it is not READY."""
        if self.state is not State.READY or self.batcher is None:
            why = f": {self.reason}" if self.reason else ""
            raise Unavailable(f"{self.signature.label} is {self.state}, not READY{why}")
        return self.batcher

    def runs_as(self, model: Model) -> bool:
        """Return whether it runs with the bytes and settings that its model has now."""
        if self.state is not State.READY or self.file.sha256 is None:
            return False
        same_bytes = self.file.sha256 == model.config.sha256.get(str(self.file.version))
        return same_bytes and _model_settings(self.config) == _model_settings(model.config)


def _model_settings(config: ModelConfig) -> ModelConfig:
    return config.model_copy(update=_OF_THE_MODEL)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as it is served: its versions in order, and by what a request may call them.

    The keys are numbers, labels, and nothing at all for the newest.
    """

    config: ModelConfig
    versions: tuple[Version, ...]
    by_key: dict[str, Version]

    @classmethod
    def of(cls, model: Model, versions: Sequence[Version]) -> "ServedModel":
        """Return a model as its config asks; the labels lead to `versions`.

        A request that names no version gets the newest that is READY, or else the newest.
        """
        numbers = {str(each.file.version): each for each in versions}
        labels = {label: numbers[str(number)] for label, number in model.config.labels.items()}
        return cls(model.config, tuple(versions), _versions_by_key(versions, labels))

    def as_replacement_of(self, before: "ServedModel | None") -> "ServedModel":
        """Return the model as it can be served now, in the place of `before`.

        As long as one of its versions is not READY, versions of `before` that it doesn't replace go
        on serving, and a label without a READY version leads where it led. Where no version serves
        at all, the model is returned as it is.
        """
        ready = {each.file.version: each for each in self.versions if each.is_ready}
        kept = before.versions if before is not None and len(ready) < len(self.versions) else ()
        served = {each.file.version: each for each in kept if each.is_ready} | ready
        if not served:
            return self
        versions = [served[number] for number in sorted(served)]
        old_labels = {} if before is None else before.by_key
        labels = {}
        for label in self.config.labels:
            asked, old = self.by_key[label], old_labels.get(label)
            number = asked.file.version
            led = old if old is not None and old in versions else served.get(number, asked)
            labels[label] = ready.get(number, led)
        return ServedModel(self.config, tuple(versions), _versions_by_key(versions, labels))


def _versions_by_key(versions: Sequence[Version], labels: dict[str, Version]) -> dict[str, Version]:
    ready = [each for each in versions if each.is_ready]
    numbers = {str(each.file.version): each for each in versions}
    return {**numbers, **labels, _DEFAULT: (ready or versions)[-1]}


class Registry:
    """All models. A change is one assignment: a request finds the old model or the new one."""

    def __init__(self) -> None:
        self._served: dict[str, ServedModel] = {}
        self._incoming: dict[
            str, tuple[Version, ...]
        ] = {}  # LOADING or FAILED beside what is served
        self._failures: dict[str, str] = {}
        self.is_open = False
        self.is_lenient = False

    # ------------------------------------------------------------ questions

    @property
    def is_ready(self) -> bool:
        """Whether callers may come. Health "", ServerReady and /readyz all say this.

        Once the start is over: of a strict one every model was READY then, of a lenient one at
        least one has to serve; nor is it so where models are in trouble and none serves.
        """
        needs_one = self.is_lenient or bool(self._failures)
        return self.is_open and (not needs_one or any(map(self.serves, self._served)))

    @property
    def names(self) -> list[str]:
        """The names of the models that are served, in order."""
        return sorted(self._served)

    @property
    def failed_names(self) -> list[str]:
        """The names of models that can't be served at all, in order."""
        return sorted(self._failures.keys() - self._served.keys())

    def versions(self, name: str | None = None) -> Iterator[Version]:
        """Return the versions of one model, or of all, in order. Raises NotFound."""
        for each in [name] if name is not None else self.names:
            yield from self.served_model(each).versions

    def incoming(self, name: str) -> tuple[Version, ...]:
        """Return versions of a model that load, or failed to, while others are served."""
        return self._incoming.get(name, ())

    def find_version(self, name: str, version: str) -> Version:
        """Return a version by number or label, in whatever state; an empty one is the newest.

        Raises NotFound.
        """
        by_key = self.served_model(name).by_key
        found = by_key.get(version) or self._incoming_version(name, version)
        if found is None:
            served = ", ".join(key for key in by_key if key != _DEFAULT)
            raise NotFound(f"model '{name}' has no version '{version}', only {served}")
        return found

    def _incoming_version(self, name: str, version: str) -> Version | None:
        """Return a version that loads or failed to, beside those that serve."""
        found = [each for each in self.incoming(name) if str(each.file.version) == version]
        return found[0] if found else None

    def served_model(self, name: str) -> ServedModel:
        """Return what is served of a model. Raises NotFound; Unavailable if it never could be."""
        served_model = self._served.get(name)
        if served_model is not None:
            return served_model
        if name in self._failures:
            raise Unavailable(f"model '{name}' can't be served: {self._failures[name]}")
        raise NotFound(f"model '{name}' is unknown")

    def all_incoming(self) -> Iterator[Version]:
        """Return the incoming versions of all models."""
        for versions in self._incoming.values():
            yield from versions

    def serves(self, name: str) -> bool:
        """Return whether a model answers a request that names no version."""
        served_model = self._served.get(name)
        return served_model is not None and served_model.by_key[_DEFAULT].state is State.READY

    def failure_reason(self, name: str) -> str:
        """Return why the last change of a model failed; empty where it did not."""
        return self._failures.get(name, "")

    # ------------------------------------------------------------ changes

    def put(self, name: str, served_model: ServedModel) -> None:
        """Serve a model from now on; what it replaces finishes the requests that it has."""
        self._served[name] = served_model
        self._incoming.pop(name, None)
        self._failures.pop(name, None)

    def set_incoming(self, name: str, versions: Sequence[Version]) -> None:
        """Show versions that are LOADING or FAILED, beside what is served."""
        served = self._served[name].versions if name in self._served else ()
        self._incoming[name] = tuple(each for each in versions if each not in served)

    def record_failure(self, name: str, reason: str) -> None:
        """Record why a change failed: what is served stays, what was to come is FAILED."""
        self._failures[name] = reason
        served = self._served[name].versions if name in self._served else ()
        for version in (*self.incoming(name), *served):
            if version.state is State.LOADING:
                version.state, version.reason = State.FAILED, reason
        numbers = {each.file.version for each in served}
        others = [each for each in self.incoming(name) if each.file.version not in numbers]
        self.set_incoming(name, others)  # one row a version: what serves under a number has it

    def forget(self, name: str) -> None:
        """Know a model no more."""
        for known in (self._served, self._incoming, self._failures):
            known.pop(name, None)

    def drain(self) -> None:
        """Be ready no more; what is in flight goes on."""
        self.is_open = False
        for version in self.versions():
            if version.state is State.READY:
                version.state = State.DRAINING
