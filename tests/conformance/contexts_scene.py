"""A router and a server that export spans, and callers under OpenTelemetry that ask them."""

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any, Final

import grpc
import numpy as np
import yaml

from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.spans.span_resource import resource
from coalmine.tensors import Tensor, encode_outputs
from tests.conformance.runners import example
from tests.doubles.oip_backend import Metadata
from tests.doubles.router_setup import router as router_of
from tests.doubles.server_process import server_of

_ONES: Final = np.ones((1, 10), np.float32)
_SOON: Final = {"OTEL_BSP_SCHEDULE_DELAY": "50"}

# By these Jaeger knows whose spans have one clock: each version by its own.
_OURS: Final = resource("caller").attributes
_HERE: Final = ",".join(f"{each}={_OURS[each]!s}" for each in ("host.name", "ip"))


class Noting(pb_grpc.GRPCInferenceServiceServicer):
    """A backend that answers, and notes the metadata of each request of the model."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._noted: list[Metadata] = []

    def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=True)

    def ModelInfer(self, request: Any, context: Any) -> pb.ModelInferResponse:
        with self._changed:
            self._noted.append(tuple(context.invocation_metadata()))
            self._changed.notify_all()
        return _logits(request)

    def ModelStreamInfer(
        self, requests: Any, context: Any
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for each in requests:
            yield pb.ModelStreamInferResponse(infer_response=_logits(each))

    def of(self, trace_id: str, count: int) -> list[Metadata]:
        """Return what was noted of a trace, once there are so many requests of it."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._of(trace_id)) >= count, 10)
            return self._of(trace_id)

    def _of(self, trace_id: str) -> list[Metadata]:
        return [each for each in self._noted if trace_id in str(dict(each).get("traceparent"))]


def _logits(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    encode_outputs(answer, [Tensor("logits", "FP32", _ONES)], raw=True)
    return answer


@dataclass(frozen=True)
class Scene:
    """Where to call, and where spans go."""

    routed: str
    served: str
    noting: Noting
    collector: str

    def ask(
        self, language: str, address: str, model: str = "digits", **context: str
    ) -> Mapping[str, Any]:
        """Have a language's example ask, within the context that its environment names."""
        exporting = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector,
            "OTEL_SERVICE_NAME": language,
            "OTEL_RESOURCE_ATTRIBUTES": _HERE,
        }
        done = example(language, address, model, environment={**exporting, **context})
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        told: Mapping[str, Any] = json.loads(done.stdout)
        return told


@contextmanager
def scene_of(repository: Path, folder: Path, collector: str) -> Iterator[Scene]:
    """Run a router before a server and before a backend that notes, until the block ends."""
    exporting = {**_SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
    with (
        noting_backend() as (noting, address),
        server_of(_digits_alone(repository, folder), folder, environment=exporting) as server,
    ):
        file = configuration(folder, server.address("grpc"), address)
        with router_of(file, environment=exporting) as router:
            yield Scene(router.address("data"), server.address("grpc"), noting, collector)


def _digits_alone(repository: Path, folder: Path) -> Path:
    copytree(repository / "digits", folder / "models" / "digits")
    return folder / "models"


@contextmanager
def noting_backend() -> Iterator[tuple[Noting, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    noting = Noting()  # type: ignore[abstract]  # others are not called
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(noting, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield noting, f"127.0.0.1:{port}"
    server.stop(0).wait()


def configuration(folder: Path, server: str, noting: str) -> Path:
    """Write a router.yaml: every request is copied, and of `differs` each copy is a mismatch."""
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"server": {"targets": [server]}, "noting": {"targets": [noting]}},
        "routes": [
            _route("digits", _digits("2"), _digits("2")),
            _route("differs", _digits("1"), _digits("2")),
            _route("noted", {"backend": "noting"}, {"backend": "noting"}),
        ],
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def _digits(version: str) -> dict[str, str]:
    return {"backend": "server", "model": "digits", "version": version}


def _route(model: str, stable: Mapping[str, str], canary: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": model,
        "match": {"model": model},
        "variants": {"stable": dict(stable), "canary": dict(canary)},
        "shadows": {"canary": 100},
        "compare": {"outputs": {"logits": {"rule": "exact"}}},
        "timeout": "10s",
    }
