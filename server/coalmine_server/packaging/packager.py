"""A TorchScript file becomes a version of a model: it is tried, then put there in one step."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coalmine.clock import Clock, SystemClock
from coalmine.errors import StartError, reason_of
from coalmine.process import config_file
from coalmine.process.output_capture import printing_as
from coalmine_server import provenance
from coalmine_server.config import VERSION_MAX, ModelConfig
from coalmine_server.packaging import declaration, origin, placement, try_run
from coalmine_server.packaging.declaration import Declaration
from coalmine_server.repository import (
    CONFIG_FILE,
    MODEL_FILE,
    is_name,
    real_path,
    served_versions,
    versions_in,
)
from coalmine_server.runtime.execution import open_program, warm_up
from coalmine_server.runtime.program import Program, Runtime
from coalmine_server.signature import Signature

LOCK_WAIT_S: Final = 30.0
# May be another for every version, so a new one between trial and move changes nothing.
_OF_VERSIONS: Final = {"sha256", "labels", "versions"}


@dataclass(frozen=True, slots=True)
class PackageOrder:
    """What to package, where to put it, and the declaration of its model."""

    source: Path
    repository: Path
    name: str
    version: int
    declared: Declaration = field(default_factory=Declaration)
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    source_tree: Path | None = None
    allow_row_mixing: bool = False
    drop: bool = False  # go on although other versions will be served no more

    @property
    def folder(self) -> Path:
        """The model's place."""
        return self.repository / self.name

    @property
    def version_folder(self) -> Path:
        """The version's place."""
        return self.folder / str(self.version)

    @property
    def config(self) -> Path:
        """The place of the model's config."""
        return self.folder / CONFIG_FILE


@dataclass(frozen=True, slots=True)
class PackagedVersion:
    """The version's path, the hash of its bytes, and warnings for the user."""

    path: Path
    sha256: str
    provenance: Mapping[str, str]
    warnings: tuple[str, ...]


class Packager:
    """Puts versions into repositories; the outside world comes in by constructor."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        clock: Clock | None = None,
        git: str = "git",
        lock_wait_s: float = LOCK_WAIT_S,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._git = git
        self._lock_wait_s = lock_wait_s
        self._progress = progress

    def package(self, order: PackageOrder) -> PackagedVersion:
        """Put the source into the repository as a version, with its hash in the model's config.

        Raises StartError, and changes nothing, for a wrong name, a version that is there already, a
        signature that the model's other versions don't have, other versions that would be served no
        more, or a file that doesn't run as declared.
        """
        _check_place(order)
        self._progress(f"reading {order.source}")
        data = _source_bytes(order.source)
        sha256 = hashlib.sha256(data).hexdigest()
        config = _parse_config(order, _config_text(order, sha256))
        with printing_as(model=order.name, version=order.version):
            tried = self._try_file(order, config, data)
        properties = {**self._origin_of(order), **_try_facts(tried, data, sha256), **order.metadata}
        files = {MODEL_FILE: data, provenance.PROVENANCE_FILE: provenance.dump(properties)}
        self._progress(f"writing {order.version_folder}")
        lost = _versions_lost(order, config)
        try:
            self._store_version(order, files, config, sha256)
        except OSError as error:
            raise StartError(f"{order.folder}: {reason_of(error)}") from None
        warnings = (*tried.warnings, *_unserved_warnings(order, config), *_drop_warnings(lost))
        return PackagedVersion(order.version_folder / MODEL_FILE, sha256, properties, warnings)

    # ------------------------------------------------------------ the trial

    def _try_file(self, order: PackageOrder, config: ModelConfig, data: bytes) -> try_run.TryResult:
        """Load and warm the file as the server will, then try random values. Raises StartError."""
        signature = Signature.of(order.name, order.version, config)
        self._progress(f"loading and warming up {signature.label}")
        program = open_program(self._runtime, signature, config, data, source=order.source)
        try:
            _warm_remaining_sizes(program, signature, config)
            self._progress(f"trying {signature.label} on random values")
            tried = try_run.try_random(program, signature)
        except StartError as error:
            raise StartError(f"{order.source}: {error}") from None
        if tried.mixing and not order.allow_row_mixing:
            raise StartError(
                f"{order.source}: {signature.label}: {tried.mixing}; batches would mix callers: "
                "mend the model, package it as one of its own (another --name, with "
                "--max-batch-size 0), or --allow-row-mixing"
            )
        return tried

    def _origin_of(self, order: PackageOrder) -> dict[str, str]:
        if order.source_tree is not None:
            self._progress(f"reading {order.source_tree}")
        return origin.origin_of(
            order.source, order.source_tree, now_ns=self._clock.wall_ns(), git=self._git
        )

    # ------------------------------------------------------------ the disk

    def _store_version(
        self, order: PackageOrder, files: Mapping[str, bytes], tried: ModelConfig, sha256: str
    ) -> None:
        with placement.scratch_folder(order.repository, wait_s=self._lock_wait_s) as scratch:
            fresh = scratch / "model"
            placement.write_files(fresh / str(order.version), files)
            with placement.lock_repository(order.repository, wait_s=self._lock_wait_s):
                _check_place(order)
                text = _config_text(order, sha256)
                _check_unchanged(order, tried, _parse_config(order, text))
                _move_version_in(order, fresh, text)


def _move_version_in(order: PackageOrder, fresh: Path, text: str) -> None:
    """Move the version in, step by step: after each step, the repository can be served."""
    labels = dict.fromkeys(order.labels, order.version)
    labelled = declaration.text_with_entries(order.config, text, "labels", labels)
    if not order.folder.exists():
        placement.replace_text(fresh / CONFIG_FILE, labelled, by_way_of=fresh.parent)
        placement.move_folder(fresh, order.folder)
        return
    # The hash first: a version without one would be served unchecked. A label before its version
    # would lead nowhere.
    placement.replace_text(order.config, text, by_way_of=fresh.parent)
    placement.move_folder(fresh / str(order.version), order.version_folder)
    if labelled != text:
        placement.replace_text(order.config, labelled, by_way_of=fresh.parent)


def _check_place(order: PackageOrder) -> None:
    if not is_name(order.name):
        raise StartError(
            f"'{order.name}' is not a model's name: A-Z, a-z, 0-9, . _ - and no dot first"
        )
    if not 1 <= order.version <= VERSION_MAX:
        raise StartError(
            f"version {order.version}: expected a positive integer, at most {VERSION_MAX}"
        )
    root, folder = real_path(order.repository), real_path(order.folder)
    if folder.parent != root:
        raise StartError(f"{order.folder}: leads out of the repository, to {folder}")
    if (folder / str(order.version)).exists():
        raise StartError(f"{order.version_folder}: is there already; take a new number")


def _source_bytes(source: Path) -> bytes:
    if source.exists() and not source.is_file():  # opening a FIFO would wait for its writer
        raise StartError(f"{source}: not a regular file")
    try:
        return source.read_bytes()
    except OSError as error:
        raise StartError(f"{source}: {reason_of(error)}") from None


# ---------------------------------------------------------------- the config


def _config_text(order: PackageOrder, sha256: str) -> str:
    """Return the new text of the config, without the labels. Raises StartError."""
    text = declaration.load_or_make_config_text(order.config, order.declared)
    text = declaration.text_with_latest(order.config, text, order.declared.latest)
    return declaration.text_with_entries(order.config, text, "sha256", {str(order.version): sha256})


def _parse_config(order: PackageOrder, text: str) -> ModelConfig:
    """Return the config with the labels. Raises StartError where a label leads nowhere."""
    labels = dict.fromkeys(order.labels, order.version)
    text = declaration.text_with_entries(order.config, text, "labels", labels)
    config = config_file.parse(text, ModelConfig, path=order.config)
    lost = _versions_lost(order, config)
    if lost and not order.drop:
        raise StartError(_lost_versions_text(order, lost, config))
    return config


def _versions_served(order: PackageOrder, config: ModelConfig) -> list[int]:
    """Return which versions will be served. Raises StartError where a label leads elsewhere."""
    there = versions_in(order.folder) if order.folder.is_dir() else ()
    return served_versions(order.folder, config, sorted({*there, order.version}))


def _versions_lost(order: PackageOrder, config: ModelConfig) -> list[int]:
    """Return which versions will be served no more. Raises StartError as _versions_served."""
    after = _versions_served(order, config)
    if not order.config.exists():
        return []
    before = config_file.load(order.config, ModelConfig).model_copy(update={"labels": {}})
    try:
        served = served_versions(order.folder, before, sorted(versions_in(order.folder)))
    except StartError:  # `only` a version that isn't there: this one may be it
        return []
    return [each for each in served if each not in after]


def _lost_versions_text(order: PackageOrder, lost: Sequence[int], config: ModelConfig) -> str:
    served = _versions_served(order, config)
    oldest = min(*served, *lost)
    latest = sum(number >= oldest for number in {*versions_in(order.folder), order.version})
    return (
        f"{order.config}: {_versions_text(lost)} would no longer be served, only "
        f"{', '.join(map(str, served))}: --latest {latest} serves them all, --drop goes on"
    )


def _drop_warnings(lost: Sequence[int]) -> tuple[str, ...]:
    return (f"{_versions_text(lost)} will no longer be served",) if lost else ()


def _versions_text(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers))
    return f"versions {listed}" if len(numbers) > 1 else f"version {listed}"


def _check_unchanged(order: PackageOrder, tried: ModelConfig, now: ModelConfig) -> None:
    if tried.model_dump(exclude=_OF_VERSIONS) != now.model_dump(exclude=_OF_VERSIONS):
        raise StartError(f"{order.config}: changed while the model was tried; try again")


# ---------------------------------------------------------------- warm-up and warnings


def _warm_remaining_sizes(program: Program, signature: Signature, config: ModelConfig) -> None:
    """Run one row and the most rows, where the config's warm-up leaves them out."""
    sizes = sorted({1, config.rows_max} - set(config.warmup_sizes))
    warm_up(program, signature, sizes, config.warmup.runs)


def _try_facts(tried: try_run.TryResult, data: bytes, sha256: str) -> dict[str, str]:
    found = {"model_sha256": sha256, "model_bytes": str(len(data))}
    return {**found, "row_mixing": tried.mixing} if tried.mixing else found


def _unserved_warnings(order: PackageOrder, config: ModelConfig) -> tuple[str, ...]:
    served = _versions_served(order, config)
    if order.version in served:
        return ()
    others = ", ".join(map(str, served))
    return (
        f"version {order.version} is not served: 'versions' in {order.config} asks for {others}",
    )
