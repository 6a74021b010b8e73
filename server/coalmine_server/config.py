"""The settings of a model, as in its config.yaml, and of the server, as on its command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from coalmine.access.tls_files import TlsFiles
from coalmine.limits import MESSAGE_BYTES_MAX
from coalmine.process.config_file import Duration, Strict
from coalmine.process.worker_bounds import NO_BOUNDS, WorkerBounds
from coalmine.shown_value import short_repr
from coalmine.tensors import DATATYPES

PLATFORM: Final = "pytorch_torchscript"
BATCH_SIZE_MAX: Final = 65_536
INSTANCES_MAX: Final = 256
VERSION_MAX: Final = 10**18 - 1
_QUEUE_ROWS: Final = 1024
_QUEUE_BYTES: Final = 512 * 1024 * 1024

_Positive = Annotated[int, Field(ge=1)]
_Version = Annotated[int, Field(ge=1, le=VERSION_MAX)]


def _check_datatype(value: str) -> str:
    if value not in DATATYPES:
        raise ValueError(f"expected one of {', '.join(DATATYPES)}, got {short_repr(value)}")
    return value


def _check_size(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError(f"expected a size above 0, or -1 for a variable one, got {value}")
    return value


def _with_text_keys(value: object) -> object:
    """Let a version be written 1 as well as "1": YAML reads the first as a number."""
    return {str(key): each for key, each in value.items()} if isinstance(value, dict) else value


class TensorConfig(Strict):
    """A declared input or output; the shape is without the batch dimension.

    BYTES is what a module takes or gives as a list of strings. A request may leave an `optional`
    input out: the module gets None.
    """

    name: Annotated[str, Field(min_length=1)]
    datatype: Annotated[str, AfterValidator(_check_datatype)]
    shape: tuple[Annotated[int, AfterValidator(_check_size)], ...]
    optional: bool = False


class Batching(Strict):
    """How long a request may wait for others, and how many rows may wait at all."""

    max_delay: Duration = 0
    max_queue_rows: _Positive | None = None
    max_queue_bytes: _Positive = _QUEUE_BYTES


class VersionPolicy(Strict):
    """Which of the versions in the folder are served: exactly one of the three."""

    latest: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    all: Literal[True] | None = None
    only: Annotated[tuple[_Version, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_one_choice(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("expected one of latest: N, all: true, only: [N, …]")
        return self


class Warmup(Strict):
    """What runs before a version is READY; no sizes = one row, and the most rows."""

    batch_sizes: tuple[_Positive, ...] | None = None
    runs: _Positive = 3  # TorchScript specialises again on the second


_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Not digits alone: a caller writes a label where it could write a number.
_Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,127}$")]
_VersionKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*$")]


class ModelConfig(Strict):
    """A model's config.yaml."""

    platform: Literal["pytorch_torchscript"]
    max_batch_size: Annotated[int, Field(ge=0, le=BATCH_SIZE_MAX)]
    inputs: Annotated[tuple[TensorConfig, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorConfig, ...], Field(min_length=1)]
    batching: Batching = Batching()
    versions: VersionPolicy = VersionPolicy(latest=1)
    labels: dict[_Label, _Version] = {}  # noqa: RUF012 - pydantic copies defaults
    instances: Annotated[int, Field(ge=1, le=INSTANCES_MAX)] = 1
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda|cuda:[0-9]+)$")] = "auto"
    warmup: Warmup = Warmup()
    load_timeout: Annotated[Duration, Field(gt=0)] | None = None  # None: the server's
    sha256: Annotated[dict[_VersionKey, _Sha256], BeforeValidator(_with_text_keys)] = {}  # noqa: RUF012 - pydantic copies defaults

    @model_validator(mode="after")
    def _check_names_are_unique(self) -> Self:
        for side in (self.inputs, self.outputs):
            names = [each.name for each in side]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"tensor '{min(twice)}' is declared twice")
        return self

    @model_validator(mode="after")
    def _check_some_input_is_required(self) -> Self:
        if all(each.optional for each in self.inputs):
            raise ValueError("inputs: expected at least one that is not optional")
        optional = [each.name for each in self.outputs if each.optional]
        if optional:
            raise ValueError(f"outputs: '{optional[0]}' is optional, which only inputs can be")
        return self

    @model_validator(mode="after")
    def _check_sizes_fit(self) -> Self:
        over = [size for size in self.warmup.batch_sizes or () if size > self.rows_max]
        if over:
            raise ValueError(f"warmup.batch_sizes: {over[0]} is over the limit of {self.rows_max}")
        if self.queue_rows_max < self.rows_max:
            raise ValueError(
                f"batching.max_queue_rows: expected at least max_batch_size ({self.rows_max}), "
                f"got {self.queue_rows_max}"
            )
        return self

    @property
    def rows_max(self) -> int:
        """The most rows one run takes; 1 where the model has no batch dimension."""
        return self.max_batch_size or 1

    @property
    def queue_rows_max(self) -> int:
        """The most rows that may wait; one more is RESOURCE_EXHAUSTED."""
        return self.batching.max_queue_rows or max(_QUEUE_ROWS, self.rows_max)

    @property
    def warmup_sizes(self) -> tuple[int, ...]:
        """The batch sizes that run before the version is READY."""
        return self.warmup.batch_sizes or tuple(sorted({1, self.rows_max}))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the server takes on at once; more is RESOURCE_EXHAUSTED."""

    message_bytes: int = MESSAGE_BYTES_MAX  # both ways
    calls_in_flight: int = 4096
    bytes_in_flight: int = 1024**3


@dataclass(frozen=True, slots=True)
class Connections:
    """How long connections live, in seconds; 0: for ever, or never.

    Ports are shared by connection, not by call: one that ends now and then lets callers spread
    anew. gRPC varies the age by a tenth. An idle connection is pinged every `keepalive_s`.
    """

    age_s: float = 300.0
    keepalive_s: float = 7200.0


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """How versions are loaded: `at_once` of them, each for `timeout_s` at most.

    After `slow_s`, a load no longer delays the next one, nor the start of the server.
    """

    timeout_s: float = 300.0  # where a config.yaml says no other
    slow_s: float = 30.0
    at_once: int = 2


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The command line of `coalmine server run`."""

    repository: Path
    listen: str
    http: str
    grace_s: float
    traces: Path | None = None
    allow_load: bool = False
    poll_s: float = 0.0  # 0: never
    workers: int = 1
    worker_bounds: WorkerBounds = NO_BOUNDS
    intra_op: int | None = None
    admin_listen: str | None = None  # None: admin calls come in where the others do
    tls: TlsFiles | None = None
    tokens: Path | None = None
    bounds: Bounds = Bounds()
    connections: Connections = Connections()
    loads: LoadLimits = LoadLimits()

    @property
    def has_supervisor(self) -> bool:
        """Whether workers share the port: several, or one and the one that replaces it."""
        return self.workers > 1 or self.worker_bounds.has_any

    @property
    def is_lenient(self) -> bool:
        """Whether to start although a model can't be served: a poll may find it mended.

        Without polls, a model that is wrong stops the start.
        """
        return self.poll_s > 0
