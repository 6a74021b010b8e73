"""A repository, a source file and a runtime whose programs are functions of arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coalmine.errors import StartError
from coalmine.tensors import Array
from coalmine_server.packaging.declaration import Declaration
from coalmine_server.packaging.packager import PackagedVersion, PackageOrder, Packager
from coalmine_server.packaging.placement import LOCK_FILE
from coalmine_server.runtime.program import Program
from coalmine_server.signature import Arrays, Signature
from tests.doubles.clock import HandClock

Function = Callable[..., Any]

DECLARED = Declaration(("x:FP32:[2]",), ("x:FP32:[2]",), 8)
NOTHING = Declaration()
NOON = HandClock(epoch_ns=1_700_000_000_000_000_000)


@dataclass
class FunctionProgram:
    """Answers with a function of its inputs: one array, or several."""

    function: Function
    runs: list[tuple[int, ...] | None] = field(default_factory=list)
    nbytes: int = 0
    device: str = "cpu"

    def run(self, inputs: Arrays) -> Sequence[Array]:
        self.runs.append(None if inputs[0] is None else inputs[0].shape)
        answer = self.function(*inputs)
        return [np.asarray(each) for each in (answer if isinstance(answer, tuple) else (answer,))]

    def close(self) -> None:
        pass


@dataclass
class FunctionRuntime:
    """Loads one function, whatever the file; refuses the bytes b"broken"."""

    function: Function = lambda x: x * 2
    programs: list[FunctionProgram] = field(default_factory=list)

    def use_threads(self, count: int) -> None:
        pass

    def load(self, data: bytes, signature: Signature, device: str, instance: int) -> Program:
        if data == b"broken":
            raise StartError("not a model")
        self.programs.append(FunctionProgram(self.function))
        return self.programs[-1]


class Desk:
    """Where a test packages: nothing but the runtime is a double."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.source = folder / "source.pt"
        self.runtime = FunctionRuntime()
        self.progress: list[str] = []

    def order(
        self, version: int = 1, declared: Declaration = DECLARED, **more: Any
    ) -> PackageOrder:
        order = PackageOrder(self.source, self.root, "m", version, declared)
        return replace(order, **more)

    def package(
        self, version: int = 1, declared: Declaration = DECLARED, data: bytes = b"a", **more: Any
    ) -> PackagedVersion:
        self.source.write_bytes(data)
        return self.packager().package(self.order(version, declared, **more))

    def packager(self) -> Packager:
        return Packager(self.runtime, clock=NOON, lock_wait_s=0.1, progress=self.progress.append)

    def refusal(self, version: int = 1, declared: Declaration = DECLARED, **more: Any) -> str:
        """Return the line of a refusal, which has changed nothing."""
        before = self.content()
        with pytest.raises(StartError) as refused:
            self.package(version, declared, **more)
        assert self.content() == before
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def content(self) -> dict[str, bytes]:
        found = (each for each in self.root.rglob("*") if each.is_file())
        names = ((str(each.relative_to(self.root)), each.read_bytes()) for each in found)
        return {name: data for name, data in names if name != LOCK_FILE}

    @property
    def config(self) -> Path:
        return self.root / "m" / "config.yaml"
