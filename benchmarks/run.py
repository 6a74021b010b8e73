"""`make bench`: alternate the contestants, take medians, write RESULTS.md.

Absolute times are this machine's; the ratios are the result. CPU time is of the measured processes
alone, h2load's and the backend's excluded.
"""

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.load import METHOD, Load, Measured, h2load_missing, run
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, encode_inputs, encode_outputs

RESULTS = Path(__file__).with_name("RESULTS.md")

Start = Callable[[str, Path], AbstractContextManager[Contestant]]

ROUTERS: dict[str, Start] = {
    "bare grpc.aio": lambda address, _: contestants.passthrough(address),
    "coalmine router": contestants.router,
    "Envoy": contestants.envoy,
}


@dataclass(frozen=True)
class Case:
    """A payload, and how much of it."""

    name: str
    shape: tuple[int, ...]
    requests: int
    concurrency: int = 16

    def body(self) -> bytes:
        request = pb.ModelInferRequest(model_name="bench")
        pixels = np.random.default_rng(1).random(self.shape, np.float32)
        encode_inputs(request, [Tensor("x", "FP32", pixels)])
        return request.SerializeToString()


SMALL = Case("small, FP32 [1,64]", (1, 64), 6_000)
IMAGE = Case("image, FP32 [1,3,224,224]", (1, 3, 224, 224), 1_500)


def answer() -> bytes:
    response = pb.ModelInferResponse(model_name="bench", model_version="1")
    encode_outputs(response, [Tensor("y", "FP32", np.zeros((1, 10), np.float32))], raw=True)
    return response.SerializeToString()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of requests")
    parser.add_argument("--dry", action="store_true", help="print, but leave RESULTS.md alone")
    asked = parser.parse_args(arguments)
    if h2load_missing():
        print("bench: h2load is missing; apt-get install nghttp2-client", file=sys.stderr)
        return 2
    sections = [_routers(case, asked.rounds, asked.scale) for case in (SMALL, IMAGE)]
    text = "\n".join([_header(asked.rounds), *sections])
    print(text)
    if not asked.dry:
        RESULTS.write_text(text)
    return 0


def _routers(case: Case, rounds: int, scale: float) -> str:
    found: dict[str, list[Measured]] = {name: [] for name in ROUTERS}
    expected = answer()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        body, requests = case.body(), int(case.requests * scale)
        load = Load.of(body, folder, requests=requests, concurrency=case.concurrency)
        address = stack.enter_context(contestants.backend(expected))
        started = [stack.enter_context(start(address, folder)) for start in ROUTERS.values()]
        for contestant in started:
            _check_answer(contestant, body, expected)
        for number in range(rounds):
            for contestant in started:
                print(f"bench: {case.name}: round {number + 1}: {contestant.name}", file=sys.stderr)
                measured = run(load, contestant.address, contestant.parts, len(expected))
                found[contestant.name].append(measured)
    return _table(case, found)


def _check_answer(contestant: Contestant, body: bytes, expected: bytes) -> None:
    with grpc.insecure_channel(contestant.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{METHOD}")
        got = call(body, timeout=10, wait_for_ready=True)
    if got != expected:
        raise SystemExit(f"bench: {contestant.name} gives a wrong answer")


def _table(case: Case, found: dict[str, list[Measured]]) -> str:
    bare = found["bare grpc.aio"]
    lines = [
        f"## Routers, {case.name}, concurrency {case.concurrency}",
        "",
        "| router | CPU µs a request | ratio to bare (each round) | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        for part in [each for each in runs[0].cpu_us if each != "control"]:
            ratios = [a.cpu_us[part] / b.cpu_us["proxy"] for a, b in zip(runs, bare, strict=True)]
            cells = [
                name if part == "proxy" else f"{name}, all its processes",
                f"{statistics.median(each.cpu_us[part] for each in runs):.0f}",
                f"**{statistics.median(ratios):.2f}** ({', '.join(f'{r:.2f}' for r in ratios)})",
                f"{statistics.median(each.rate for each in runs):.0f}",
                f"{statistics.median(each.p50_ms for each in runs):.1f}",
                f"{statistics.median(each.p99_ms for each in runs):.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _header(rounds: int) -> str:
    return f"""# Results

Made by `make bench` on {time.strftime("%Y-%m-%d")}: {os.cpu_count()} cores, Python
{platform.python_version()}, grpcio {grpc.__version__}. Medians of {rounds} rounds that alternate;
h2load, closed loop, four connections. CPU is utime + stime of the named processes. Only ratios
travel: absolute figures belong to the machine they were taken on.

The router runs with weights 90/10, a sticky key in every request, every request reported, and 1 %
of traces kept. "All its processes" counts the supervisor and the control process too, which learns
from the reports off the hot path.
"""


if __name__ == "__main__":
    sys.exit(main())
