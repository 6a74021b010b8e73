"""Whether the server's memory stays where it is, over many requests of varying size."""

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import contestants
from benchmarks.load import Load, send, tree
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Tensor, encode_inputs

REQUESTS = 200_000
ROWS = (1, 3, 32, 8, 17, 2, 24, 5)


def section(scale: float) -> str:
    """Return what the server's resident memory was, every tenth of the requests."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(contestants.server(folder, "small", "[64]"))
        loads = [_load(rows, folder, int(REQUESTS * scale) // (10 * len(ROWS))) for rows in ROWS]
        for tenth in range(11):
            for load in loads:
                send(load, server.address, requests=load.requests)
            found.append(rss_kib(server.parts["server"][0]))
            print(f"bench: memory: {tenth * 10} %: {found[-1]} KiB", file=sys.stderr)
    first, rest = found[0], found[1:]
    furthest = max(rest, key=lambda kib: abs(kib - first))
    return f"""## Memory, {int(REQUESTS * scale):,} requests of {min(ROWS)} to {max(ROWS)} rows

The server holds {first / 1024:.1f} MiB of resident memory after a tenth as many requests for
warm-up. After each further tenth it holds
{", ".join(f"{kib / 1024:.1f}" for kib in rest)}. The furthest differs from the first by
**{(furthest - first) / first:+.1%}**.
"""


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process and its descendants."""
    return sum(_own_rss_kib(each) for each in tree(pid))


def _own_rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _load(rows: int, folder: Path, requests: int) -> Load:
    request = pb.ModelInferRequest(model_name="bench")
    pixels = np.random.default_rng(rows).random((rows, 64), np.float32)
    encode_inputs(request, [Tensor("x", "FP32", pixels)])
    return Load.of(request.SerializeToString(), folder, requests=requests, concurrency=16)
