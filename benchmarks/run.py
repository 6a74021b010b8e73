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
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np

from benchmarks import comparing, contestants, memory, observer_rate, shadow_cost
from benchmarks.contestants import Contestant
from benchmarks.load import METHOD, Load, Measured, h2load_missing, run
from benchmarks.messages import answer, request
from benchmarks.results import RESULTS, row
from coalmine.inference import inference_pb2 as pb
from coalmine.inference import inference_pb2_grpc as pb_grpc
from coalmine.tensors import decode_outputs


@dataclass(frozen=True)
class Case:
    """A payload, and how much of it."""

    name: str
    shape: tuple[int, ...]
    requests: int
    model: str
    concurrency: int = 16

    @property
    def row(self) -> str:
        """The shape without the batch dimension, as `coalmine package` takes it."""
        return str(list(self.shape[1:])).replace(" ", "")

    def body(self) -> bytes:
        return request(self.shape)


SMALL = Case("small, FP32 [1,64]", (1, 64), 6_000, "small")
IMAGE = Case("image, FP32 [1,3,224,224]", (1, 3, 224, 224), 1_500, "image")
WIDE = Case("wide, MLP 1024→4096→4096→10", (1, 1024), 6_000, "wide", concurrency=64)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of requests")
    parser.add_argument("--only", nargs="+", help="sections, such as servers; with --dry")
    parser.add_argument("--dry", action="store_true", help="print, but leave RESULTS.md alone")
    asked = parser.parse_args(arguments)
    if h2load_missing():
        print("bench: h2load is missing; apt-get install nghttp2-client", file=sys.stderr)
        return 2
    sections = [
        section()
        for name, section in _sections(asked.rounds, asked.scale).items()
        if name in (asked.only or name)
    ]
    text = "\n".join([_header(asked.rounds), *sections])
    print(text)
    if not asked.dry:
        RESULTS.write_text(text)
    return 0


def _sections(rounds: int, scale: float) -> dict[str, Callable[[], str]]:
    return {
        "routers": lambda: "\n".join(_routers(case, rounds, scale) for case in (SMALL, IMAGE)),
        "servers": lambda: "\n".join(_servers(case, rounds, scale) for case in (SMALL, IMAGE)),
        "unbatched": lambda: "\n".join(_unbatched(each, rounds, scale) for each in (16, 64)),
        "batching": lambda: _batching(rounds, scale),
        "memory": lambda: memory.section(scale),
        "comparing": comparing.section,
        "shadow": lambda: shadow_cost.section(rounds, seconds=scale * shadow_cost.SECONDS),
        "observer": lambda: observer_rate.section(rounds, scale * observer_rate.SECONDS),
    }


def _routers(case: Case, rounds: int, scale: float) -> str:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(contestants.backend(answer()))
        started = [
            stack.enter_context(contestants.passthrough(address)),
            stack.enter_context(contestants.router(address, folder)),
            stack.enter_context(contestants.envoy(address, folder)),
            Contestant("no router", address, {}),
        ]
        if case is SMALL:
            started.append(stack.enter_context(contestants.router(address, folder, workers=2)))
        found = _alternated(case, started, folder, rounds, scale, expected=answer())
    title = f"Routers, {case.name}, concurrency {case.concurrency}"
    return _table(title, found, floor=found[started[0].name], part="proxy")


def _servers(case: Case, rounds: int, scale: float) -> str:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = [
            stack.enter_context(contestants.minimal_server(folder, case.model)),
            stack.enter_context(contestants.server(folder, case.model, case.row)),
        ]
        if case is SMALL:
            started.append(
                stack.enter_context(contestants.server(folder, case.model, case.row, traced=True))
            )
        expected = _answer_of(started[0], case.body())
        found = _alternated(case, started, folder, rounds, scale, expected=expected)
    title = f"Servers, {case.name}, concurrency {case.concurrency}"
    return _table(title, found, floor=found[started[0].name], part="server")


def _unbatched(concurrency: int, rounds: int, scale: float) -> str:
    """Compare what a small model costs that can't batch: each request runs alone."""
    case = replace(SMALL, concurrency=concurrency)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = [stack.enter_context(contestants.minimal_server(folder, case.model))]
        for size in (1, 0):
            server = contestants.server(folder, case.model, case.row, max_batch=size)
            started.append(stack.enter_context(server))
        expected = _answer_of(started[0], case.body())
        found = _alternated(case, started, folder, rounds, scale, expected=expected)
    title = f"Servers, small, without batching, concurrency {concurrency}"
    made = "Alone: `python -m benchmarks.run --only unbatched --dry`."
    return _table(title, found, floor=found[started[0].name], part="server", text=made)


def _batching(rounds: int, scale: float) -> str:
    """Compare the server's throughput with that of the model alone, at its best batch size.

    Of sizes up to the concurrency: a closed loop of 64 callers never makes a larger batch.
    """
    case, cores = WIDE, os.cpu_count() or 1
    alone: list[float] = []
    served: list[float] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loop = stack.enter_context(contestants.loop(folder, case.model, 1024))
        sizes = [size for size in (8, 16, 32, 64) if size <= case.concurrency]
        tried = {size: loop.rows_per_s(size, cores, 2 * scale) for size in sizes}
        best = max(tried, key=lambda size: tried[size])
        server = stack.enter_context(
            contestants.server(folder, case.model, case.row, max_batch=best, max_delay="15ms")
        )
        load = Load.of(
            case.body(), folder, requests=int(case.requests * scale), concurrency=case.concurrency
        )
        size = len(_answer_of(server, case.body()))
        for number in range(rounds):
            print(f"bench: {case.name}: round {number + 1}", file=sys.stderr)
            alone.append(loop.rows_per_s(best, cores, 4 * scale))
            served.append(run(load, server.address, server.parts, size).rate)
        inside = _statistics_of(server)
    return _batching_text(best, alone, served, inside)


def _batching_text(
    best: int, alone: Sequence[float], served: Sequence[float], inside: pb.ModelStatistics
) -> str:
    ratios = [server / loop for loop, server in zip(alone, served, strict=True)]
    by_round = ", ".join(f"{each:.2f}" for each in ratios)
    alone_rate, served_rate = statistics.median(alone), statistics.median(served)
    rows = inside.inference_count / inside.execution_count
    infer_ns = sum(each.compute_infer.ns for each in inside.batch_stats)
    infer_us = infer_ns / inside.inference_count / 1e3
    loop_us, row_us = 1e6 / alone_rate, 1e6 / served_rate
    return f"""## Batching, {WIDE.name}, concurrency {WIDE.concurrency}

The model runs in a loop, at its best batch size ({best}) on all {os.cpu_count()} cores. The server
runs beside h2load on the same cores, with `max_delay: 15ms`.

| what | rows/s | ratio, by round |
|---|---|---|
| the model alone | {alone_rate:.0f} | 1.00 |
| coalmine server | {served_rate:.0f} | **{statistics.median(ratios):.2f}** ({by_round}) |

A row takes {row_us:.0f} µs there. The model takes {infer_us:.0f} of them, in batches of
{rows:.0f} rows on average. Alone it takes {loop_us:.0f}: while it computes, the server reaches
{loop_us / infer_us:.2f} of the loop. In the rest of the time, gRPC and h2load answer and ask. All
{WIDE.concurrency} callers wait for the same batch, so nothing else can run on these cores
meanwhile.
"""


def _statistics_of(contestant: Contestant) -> pb.ModelStatistics:
    with grpc.insecure_channel(contestant.address) as channel:
        asked = pb.ModelStatisticsRequest(name="bench")
        answer = pb_grpc.GRPCInferenceServiceStub(channel).ModelStatistics(asked)
    return answer.model_stats[0]


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
    title: str,
    found: dict[str, list[Measured]],
    *,
    floor: Sequence[Measured],
    part: str,
    text: str = "",
) -> str:
    lines = [
        f"## {title}",
        "",
        *([text, ""] if text else []),
        "| what | CPU µs a request | ratio to the first, by round | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        if not runs[0].cpu_us:
            lines.append(_without_cpu(name, runs))
        for each in [name for name in runs[0].cpu_us if name != "control"]:
            ratios = [a.cpu_us[each] / b.cpu_us[part] for a, b in zip(runs, floor, strict=True)]
            lines.append(_row(name if each == part else f"{name}, all", runs, each, ratios))
    return "\n".join([*lines, ""])


def _row(name: str, runs: Sequence[Measured], part: str, ratios: Sequence[float]) -> str:
    cpu_us = statistics.median(each.cpu_us[part] for each in runs)
    by_round = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    ratio = f"**{statistics.median(ratios):.2f}** ({by_round})"
    return row(name, f"{cpu_us:.0f}", ratio, *_speed(runs))


def _without_cpu(name: str, runs: Sequence[Measured]) -> str:
    return row(name, "", "", *_speed(runs))


def _speed(runs: Sequence[Measured]) -> tuple[str, str, str]:
    return (
        f"{statistics.median(each.rate for each in runs):.0f}",
        f"{statistics.median(each.p50_ms for each in runs):.1f}",
        f"{statistics.median(each.p99_ms for each in runs):.1f}",
    )


def _header(rounds: int) -> str:
    return f"""# Results

Made by `make bench` on {time.strftime("%Y-%m-%d")}: {os.cpu_count()} cores, Python
{platform.python_version()}, grpcio {grpc.__version__}. The figures are medians of {rounds} rounds
that alternate. h2load makes the load: a closed loop over four connections. CPU is utime + stime of
the named processes. Only the ratios hold elsewhere: absolute figures belong to this machine.

The router runs with weights 90/10 and a sticky key in every request. It reports every request, and
keeps 1 % of traces. "All" counts the supervisor and the control process too. The control process
works on the reports off the hot path. A router adds to a request's time its own latency less that
of "no router", the backend alone.
"""


if __name__ == "__main__":
    sys.exit(main())
