"""Model control over a real folder and real threads, with programs that are doubles."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from coalmine.clock import SystemClock
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, encode_inputs
from coalmine_server.batching.request_queue import PendingRequest
from coalmine_server.batching.timers import LoopTimer
from coalmine_server.config import LoadLimits
from coalmine_server.figures.metrics import Metrics
from coalmine_server.loader import Loader
from coalmine_server.model_control import ModelControl
from coalmine_server.registry import Registry, State, Version
from coalmine_server.repository import Repository
from coalmine_server.wire.inputs import check_request
from coalmine_server.wire.requests import InferRequest, read_infer
from tests.doubles.server_parts import FakeRuntime
from tests.models import config

TENSOR = [{"name": "x", "datatype": "FP32", "shape": [2]}]


def write(root: Path, name: str, files: dict[int, bytes], **content: Any) -> None:
    """Write or add to a model's folder; `content` goes into its config."""
    for number, data in files.items():
        folder = root / name / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.pt").write_bytes(data)
    present = {each.parent.name: each for each in (root / name).glob("*/model.pt")}
    hashes = {key: hashlib.sha256(file.read_bytes()).hexdigest() for key, file in present.items()}
    written = {**config(inputs=TENSOR, outputs=TENSOR), "sha256": hashes, **content}
    (root / name / "config.yaml").write_text(yaml.safe_dump(written))


class ModelRig:
    """A control with nothing loaded; `told` remembers who was said to serve, in order."""

    def __init__(
        self,
        root: Path,
        *,
        cores: int = 4,
        hashed_only: bool = False,
        limits: LoadLimits = LoadLimits(),  # noqa: B008 - frozen
    ) -> None:
        self.runtime = FakeRuntime()
        self.registry = Registry()
        self.repository = Repository(root, hashed_only=hashed_only)
        self.notified: list[tuple[str, bool]] = []
        self.metrics = Metrics()
        clock = SystemClock()
        loader = Loader(
            runtime=self.runtime,
            clock=clock,
            timer=LoopTimer(clock),
            metrics=self.metrics,
            cores=cores,
            limits=limits,
        )

        async def notify(name: str, serves: bool) -> None:
            self.notified.append((name, serves))

        self.control = ModelControl(
            self.repository, self.registry, loader, self.metrics, notify=notify, grace_s=5
        )

    def states(self, name: str | None = None) -> dict[str, State]:
        """Return the state of every version of each model, by model/version."""
        return {
            f"{each.file.model}/{each.file.version}": each.state
            for each in self.registry.versions(name)
        }

    def find(self, name: str, version: str = "") -> Version:
        return self.registry.find_version(name, version)

    def enter(self, version: Version, value: float = 1.0) -> PendingRequest:
        """Queue one row of `value`."""
        message = pb.ModelInferRequest()
        encode_inputs(message, [Tensor("x", "FP32", np.full((1, 2), value, "f4"))])
        request = read_infer(message.SerializeToString())
        assert isinstance(request, InferRequest)
        return version.ready_batcher().enqueue(check_request(version.signature, request), None)


@asynccontextmanager
async def open_rig(root: Path, *, lenient: bool = False, **options: Any) -> AsyncIterator[ModelRig]:
    """Yield a rig whose models are loaded; every thread has to end with it."""
    rig = ModelRig(root, **options)
    rig.control.register_models(lenient=lenient)
    try:
        await rig.control.open(lenient=lenient)
        async with rig.control.accept_changes():
            yield rig
    finally:
        rig.runtime.let_all_run()
        assert rig.control.close(timeout_s=5), "every thread ends"
