"""The sections of a route on copies: what is copied, and what may be kept of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from coalmine.process.config_file import Duration, Percent, Size, Strict
from coalmine.shares import percent_bp
from coalmine_router.config.names import MetadataKey

_CALL_NS_MAX = 60 * 10**9


class CopiesConfig(Strict):
    """Copies of one kind to one variant: a percentage alone, or with limits of their own."""

    share: Percent
    # Calls begun in a second; copies drawn beyond it are dropped and counted.
    max_rps: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1_024)] = 32
    timeout: Annotated[Duration, Field(gt=0, le=_CALL_NS_MAX)] = 5 * 10**9

    @model_validator(mode="before")
    @classmethod
    def _expand_share(cls, value: Any) -> Any:
        if isinstance(value, dict | CopiesConfig):
            return value
        percent_bp(value)  # here, so that the error doesn't name `share`, which isn't in the file
        return {"share": value}


NO_COPIES = CopiesConfig(share=0)


class SegmentConfig(Strict):
    """The metadata key whose values split the evidence into segments, such as a tenant's name."""

    metadata: MetadataKey

    @field_validator("metadata")
    @classmethod
    def _check_key(cls, key: str) -> str:
        if key in {"authorization", "cookie"}:
            raise ValueError(f"'{key}' is a credential, and segments are kept and shown")
        return key


Capture = Literal["none", "shapes", "full"]


class KeptConfig(Strict):
    """How many mismatches of each candidate and kind are kept, and how much of each.

    `capture`: `full` keeps request and answers, `shapes` keeps names, datatypes and shapes, `none`
    keeps neither. Unset, it is `full`, or `shapes` where the route is sensitive.
    """

    capture: Capture | None = None
    newest: Annotated[int, Field(ge=0, le=10_000)] = 200
    worst: Annotated[int, Field(ge=0, le=10_000)] = 200
    # At most so many are written to disk a second, after a burst of a few seconds'.
    per_second: Annotated[float, Field(gt=0, le=1_000, allow_inf_nan=False)] = 5
    max_age: Annotated[Duration, Field(gt=0)] = 30 * 24 * 3_600 * 10**9
    body_bytes_max: Annotated[Size, Field(gt=0, le=16 * 1024**2)] = 256 * 1024
    drop_inputs: Annotated[tuple[str, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if not self.newest + self.worst:
            raise ValueError("newest and worst are both 0: set capture: none to keep no values")
        return self
