"""How fast answers are compared. `python -m benchmarks.comparing` prints two tables.

On one core, in CPU time: medians of rounds that alternate between all that is measured.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import ml_dtypes
import numpy as np

from benchmarks import results
from coalmine.inference import inference_pb2 as pb
from coalmine.tensors import Array, Tensor, datatype_of, encode_outputs
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.job import ComparisonJob, results_of
from coalmine_router.observer.comparison.result import ComparedAnswer
from coalmine_router.observer.evidence.betting.mean_bets import Limit
from coalmine_router.observer.evidence.betting.windows import WindowTerms
from coalmine_router.observer.evidence.counts import Evidence
from coalmine_router.observer.evidence.gates.all_gates import GateSettings, verdict_after
from coalmine_router.observer.evidence.verdict import NO_VERDICT

ROUNDS: Final = 7
LARGE_BYTES: Final = 1024**2
ROWS: Final = 256

Work = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """Something to do, and how often it is done in a round."""

    name: str
    work: Work
    times: int


def answer(version: str, **outputs: Array) -> ComparedAnswer:
    response = pb.ModelInferResponse(model_name="bench", model_version=version)
    tensors = [Tensor(name, datatype_of(each.dtype), each) for name, each in outputs.items()]
    encode_outputs(response, tensors, raw=True)
    return ComparedAnswer(response.SerializeToString())


def job(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], **rule: Any
) -> ComparisonJob:
    rules = CompareConfig.model_validate({"default": rule or {"rule": "close"}})
    return ComparisonJob((answer("1", **reference), answer("2", **candidate)), ((0, 1),), rules)


# ---------------------------------------------------------------- small answers


def small() -> list[Measured]:
    logits = np.random.default_rng(1).normal(size=(1, 10)).astype(np.float32)
    outputs = {"logits": logits, "scores": logits}
    off = {name: each + np.float32(1) for name, each in outputs.items()}
    near = {name: each * np.float32(1 + 1e-7) for name, each in outputs.items()}
    jobs = {
        "equal": job(outputs, outputs),
        "within tolerance": job(outputs, near),
        "mismatch": job(outputs, off),
    }
    found = [
        Measured(f"{name}: job", partial(results_of, each), 1_000) for name, each in jobs.items()
    ]
    return found + [
        Measured(f"{name}: job, evidence, verdict", judging(each), 1_000)
        for name, each in jobs.items()
    ]


def judging(each: ComparisonJob) -> Work:
    evidence, gates, terms = Evidence(), GateSettings(), WindowTerms(Limit(0.01))
    verdict = NO_VERDICT

    def work() -> None:
        nonlocal verdict
        comparison = results_of(each).comparisons[0]
        evidence.add(comparison)
        evidence.windows.add(comparison.share, "", 1, terms)
        verdict = verdict_after(evidence, gates, verdict, at_ns=0, trace_id=b"")

    return work


# ---------------------------------------------------------------- 1 MB answers

FLOATS: Final[dict[str, Any]] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "exact": {"rule": "exact"},
    "relative": {"rule": "relative"},
    "argmax": {"rule": "argmax"},
    "top_k": {"rule": "top_k", "k": 5},
    "top_k, ordered": {"rule": "top_k", "k": 5, "order": True},
    "cosine": {"rule": "cosine"},
    "distribution": {"rule": "distribution", "from": "logits"},
}


def large() -> list[Measured]:
    found = [
        Measured(f"close {name}, {how}", partial(results_of, large_job(dtype, times)), 5)
        for name, dtype in FLOATS.items()
        for how, times in (("equal", 1.0), ("slightly apart", 1 + 1e-6), ("all differ", 1.1))
    ]
    found += [
        Measured("close INT8, equal", partial(results_of, integers(0)), 5),
        Measured("close INT8, 1 in 50 differs", partial(results_of, integers(50)), 5),
    ]
    return found + [
        Measured(
            f"{name} FP32, slightly apart",
            partial(results_of, large_job(np.float32, 1 + 1e-6, **rule)),
            5,
        )
        for name, rule in OTHERS.items()
    ]


def large_job(dtype: Any, times: float, **rule: Any) -> ComparisonJob:
    elements = LARGE_BYTES // np.dtype(dtype).itemsize
    values = np.random.default_rng(2).normal(size=(ROWS, elements // ROWS)).astype(np.float32)
    off = (values * np.float32(times)).astype(dtype)
    return job({"y": values.astype(dtype)}, {"y": off}, **rule)


def integers(every: int) -> ComparisonJob:
    values = np.random.default_rng(3).integers(-100, 100, (ROWS, LARGE_BYTES // ROWS), np.int8)
    off = values.copy()
    if every:
        off[:, ::every] += 1
    return job({"y": values}, {"y": off})


# ---------------------------------------------------------------- rounds and tables


def medians_us(all_of_it: list[Measured]) -> list[float]:
    """Return the CPU time of doing each once, in microseconds."""
    found: list[list[float]] = [[] for _ in all_of_it]
    for _ in range(ROUNDS):
        for taken, each in zip(found, all_of_it, strict=True):
            began = time.process_time_ns()
            for _ in range(each.times):
                each.work()
            taken.append((time.process_time_ns() - began) / each.times / 1_000)
    return [statistics.median(each) for each in found]


def section() -> str:
    """Return both tables."""
    few, much = small(), large()
    small_us, large_us = medians_us(few), medians_us(much)
    lines = [
        "## Comparing, one core",
        "",
        "Made by `python -m benchmarks.comparing`.",
        "",
        "Each answer has two outputs of 10 FP32 values, raw. All figures here include decoding.",
        "",
        "| what | CPU µs | comparisons/s |",
        "|---|---|---|",
        *(
            f"| {each.name} | {us:.0f} | {1e6 / us:,.0f} |"
            for each, us in zip(few, small_us, strict=True)
        ),
        "",
        f"Each answer has one output of 1 MB in {ROWS} rows. GB/s counts both sides' bytes.",
        "",
        "| what | CPU µs | GB/s |",
        "|---|---|---|",
        *(
            f"| {each.name} | {us:,.0f} | {2 * LARGE_BYTES / us / 1_000:.2f} |"
            for each, us in zip(much, large_us, strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print, but leave RESULTS.md alone")
    asked = parser.parse_args(arguments)
    text = section()
    return results.tell(text, dry=asked.dry)


if __name__ == "__main__":
    sys.exit(main())
