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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.load import METHOD, Load, Measured, h2load_missing, run
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, decode_outputs, encode_inputs, encode_outputs

RESULTS = Path(__file__).with_name("RESULTS.md")


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of requests")
    parser.add_argument("--dry", action="store_true", help="print, but leave RESULTS.md alone")
    asked = parser.parse_args(arguments)
    if h2load_missing():
        print("bench: h2load is missing; apt-get install nghttp2-client", file=sys.stderr)
        return 2
    sections = [_routers(case, asked.rounds, asked.scale) for case in (SMALL, IMAGE)]
    sections.append(_servers(SMALL, asked.rounds, asked.scale))
    text = "\n".join([_header(asked.rounds), *sections])
    print(text)
    if not asked.dry:
        RESULTS.write_text(text)
    return 0


def _routers(case: Case, rounds: int, scale: float) -> str:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(contestants.backend(answer()))
        started = [
            stack.enter_context(contestants.passthrough(address)),
            stack.enter_context(contestants.router(address, folder)),
            stack.enter_context(contestants.envoy(address, folder)),
        ]
        found = _alternated(case, started, folder, rounds, scale, expected=answer())
    title = f"Routers, {case.name}, concurrency {case.concurrency}"
    return _table(title, found, floor=found[started[0].name], part="proxy")


def _servers(case: Case, rounds: int, scale: float) -> str:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = [
            stack.enter_context(contestants.minimal_server(folder)),
            stack.enter_context(contestants.server(folder)),
            stack.enter_context(contestants.server(folder, traced=True)),
        ]
        expected = _answer_of(started[0], case.body())
        found = _alternated(case, started, folder, rounds, scale, expected=expected)
    title = f"Servers, MLP 64→256→10, {case.name}, concurrency {case.concurrency}"
    return _table(title, found, floor=found[started[0].name], part="server")


def _alternated(
    case: Case,
    started: Sequence[Contestant],
    folder: Path,
    rounds: int,
    scale: float,
    *,
    expected: bytes,
) -> dict[str, list[Measured]]:
    body = case.body()
    requests = int(case.requests * scale)
    load = Load.of(body, folder, requests=requests, concurrency=case.concurrency)
    for contestant in started:
        if not _alike(_answer_of(contestant, body), expected):
            raise SystemExit(f"bench: {contestant.name} gives a wrong answer")
    found: dict[str, list[Measured]] = {contestant.name: [] for contestant in started}
    for number in range(rounds):
        for contestant in started:
            print(f"bench: {case.name}: round {number + 1}: {contestant.name}", file=sys.stderr)
            size = len(_answer_of(contestant, body))
            found[contestant.name].append(run(load, contestant.address, contestant.parts, size))
    return found


def _answer_of(contestant: Contestant, body: bytes) -> bytes:
    with grpc.insecure_channel(contestant.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{METHOD}")
        return call(body, timeout=10, wait_for_ready=True)


def _alike(got: bytes, expected: bytes) -> bool:
    """Return whether both answers say the same, but for the order in which sums were taken."""
    tensors = [decode_outputs(pb.ModelInferResponse.FromString(each)) for each in (got, expected)]
    pairs = list(zip(*tensors, strict=True))
    return all(a.name == b.name and np.allclose(a.array, b.array, atol=1e-5) for a, b in pairs)


def _table(
    title: str, found: dict[str, list[Measured]], *, floor: Sequence[Measured], part: str
) -> str:
    lines = [
        f"## {title}",
        "",
        "| what | CPU µs a request | ratio to the first, by round | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        for each in [name for name in runs[0].cpu_us if name != "control"]:
            ratios = [a.cpu_us[each] / b.cpu_us[part] for a, b in zip(runs, floor, strict=True)]
            lines.append(_row(name if each == part else f"{name}, all", runs, each, ratios))
    return "\n".join([*lines, ""])


def _row(name: str, runs: Sequence[Measured], part: str, ratios: Sequence[float]) -> str:
    cells = [
        name,
        f"{statistics.median(each.cpu_us[part] for each in runs):.0f}",
        f"**{statistics.median(ratios):.2f}** ({', '.join(f'{r:.2f}' for r in ratios)})",
        f"{statistics.median(each.rate for each in runs):.0f}",
        f"{statistics.median(each.p50_ms for each in runs):.1f}",
        f"{statistics.median(each.p99_ms for each in runs):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _header(rounds: int) -> str:
    return f"""# Results

Made by `make bench` on {time.strftime("%Y-%m-%d")}: {os.cpu_count()} cores, Python
{platform.python_version()}, grpcio {grpc.__version__}. Medians of {rounds} rounds that alternate;
h2load, closed loop, four connections. CPU is utime + stime of the named processes. Only ratios
travel: absolute figures belong to the machine they were taken on.

The router runs with weights 90/10, a sticky key in every request, every request reported, and 1 %
of traces kept. "All" counts the supervisor and the control process too, which learns
from the reports off the hot path.
"""


if __name__ == "__main__":
    sys.exit(main())
