"""The limit: the model in a loop of one process, no server. `python -m benchmarks.loop FILE WIDTH`.

Reads a line "BATCH THREADS SECONDS" from standard input, and prints rows a second for it.
"""

import sys
import time

import torch


def rows_per_s(model: torch.jit.ScriptModule, width: int, batch: int, seconds: float) -> float:
    rows = torch.rand(batch, width)
    done, began = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - began < seconds:
            model(rows)
            done += batch
    return done / (time.perf_counter() - began)


def main() -> None:
    model = torch.jit.freeze(torch.jit.load(sys.argv[1]).eval())  # type: ignore[no-untyped-call]  # torch has no types here
    width = int(sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin:
        batch, threads, seconds = line.split()
        torch.set_num_threads(int(threads))
        rows_per_s(model, width, int(batch), 0.5)
        print(rows_per_s(model, width, int(batch), float(seconds)), flush=True)


if __name__ == "__main__":
    main()
