"""A router's configuration for the digits, and the calls that tests make of a running one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1 import control_pb2_grpc
from tests.doubles.oip_backend import INFER, request_body
from tests.doubles.processes import Started, started

# Every process has to end in it.
GRACE_S = 5

PIXELS = np.zeros((1, 64), np.float32)
REQUEST = request_body("digits", pixels=PIXELS)


def configuration(folder: Path, backend: str, **route: Any) -> Path:
    """Write a router.yaml with ports of the system's choice; `route` changes the route's keys."""
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"blue": {"targets": [backend]}},
        "routes": [
            {
                "name": "digits",
                "match": {"model": "digits"},
                "variants": {
                    "stable": {"backend": "blue", "version": "1"},
                    "canary": {"backend": "blue", "version": "2"},
                    "int8": {"backend": "blue", "model": "digits-int8", "version": "1"},
                },
                "timeout": "10s",
                **route,
            }
        ],
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def judged_canary(folder: Path, stable: str, canary: str, max_mismatch_rate: float) -> Path:
    """Write a router.yaml of a canary that is judged by copies of what stable answers."""
    file = configuration(
        folder,
        stable,
        variants={
            "stable": {"backend": "blue", "version": "1"},
            "canary": {"backend": "green", "version": "2"},
        },
        shadows={"canary": 100},
        gates={
            "max_mismatch_rate": max_mismatch_rate,
            "min_pairs": 10,
            "per": "request",
            "min_duration": "0s",
        },
    )
    text = yaml.safe_load(file.read_text())
    text["backends"]["green"] = {"targets": [canary]}
    file.write_text(yaml.safe_dump(text))
    return file


@contextmanager
def router(
    file: Path,
    *,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
) -> Iterator[Started]:
    arguments = (
        "router",
        "run",
        "--config",
        file,
        "--workers",
        str(workers),
        "--grace",
        f"{GRACE_S}s",
    )
    with started(*arguments, folder=file.parent, environment=environment, inside=inside) as running:
        yield running


@contextmanager
def control_of(running: Started) -> Iterator[control_pb2_grpc.RouteControlStub]:
    with grpc.insecure_channel(running.address("control")) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        yield control_pb2_grpc.RouteControlStub(channel)


@contextmanager
def caller_of(running: Started) -> Iterator["Caller"]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(running.address("data"), options=options) as channel:
        yield Caller(channel)


class Caller:
    """Calls ModelInfer with raw bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{INFER}")

    def begin(self) -> Any:
        """Return a call that is under way."""
        return self._call.future(REQUEST, timeout=60)

    def infer(
        self, body: bytes = REQUEST, metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> tuple[bytes, str, int]:
        """Return the answer, the variant that gave it, and the table's revision."""
        response, call = self._call.with_call(body, timeout=20, metadata=tuple(metadata))
        trailing = {key: str(value) for key, value in call.trailing_metadata() or ()}
        return response, trailing["x-coalmine-variant"], int(trailing["x-coalmine-revision"])

    def variants(self, requests: int) -> Counter[str]:
        """Return how many of so many requests each variant answered, many at a time."""
        seen: Counter[str] = Counter()
        for begin in range(0, requests, 100):
            calls = [
                self._call.future(REQUEST, timeout=20) for _ in range(min(100, requests - begin))
            ]
            for call in calls:
                call.result()
                seen[str(dict(call.trailing_metadata() or ())["x-coalmine-variant"])] += 1
        return seen


def set_weights(
    control: control_pb2_grpc.RouteControlStub, expect: int = 0, **weights_bp: int
) -> pb.ChangeResponse:
    request = pb.SetWeightsRequest(
        route="digits", weights_bp=weights_bp, reason="test", actor="tester", expect_revision=expect
    )
    return control.SetWeights(request, timeout=20)
