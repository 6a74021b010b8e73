"""Trains and packages the digits models: `python -m coalmine_demo.models --help`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from coalmine.process.early_signals import end_at_signals
from coalmine.process.exit_codes import EXIT_CANNOT_START, EXIT_FAILED, EXIT_OK
from coalmine.process.standard_streams import open_standard_streams
from coalmine_demo.demo_failure import StepFailed, step_failures
from coalmine_demo.demo_processes import DemoProcesses, run_unless_interrupted
from coalmine_demo.heldout import HeldOut, load_heldout, model_file

NEEDED: Final = ("torch", "sklearn")
REMEDY: Final = "the demo needs torch and scikit-learn; pip install 'coalmine[demo]'"
SIGNATURE: Final = (
    *("--input", "pixels:FP32:[64]"),
    *("--output", "logits:FP32:[10]"),
    *("--output", "label:INT64:[1]"),
    *("--max-batch-size", "32"),
    # Stable, the canary and the broken one stand beside each other.
    *("--latest", "3"),
)


class ModelCalls(Protocol):
    """What packaging needs of the demo's processes."""

    async def call(self, *arguments: str) -> str:
        """Run `coalmine ARGUMENTS` to its end; return its output. Raises StepFailed."""
        ...


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """Where a variant's model stands in the repository."""

    variant: str
    model: str
    version: str


ENTRIES: Final = (
    PackagedModel("stable", "digits", "1"),
    PackagedModel("canary", "digits", "2"),
    PackagedModel("broken", "digits", "3"),
    PackagedModel("int8", "digits-int8", "1"),
)


def is_installed() -> bool:
    """Return whether the packages that training needs are installed, without importing them."""
    return all(find_spec(name) is not None for name in NEEDED)


async def train_models(processes: DemoProcesses, training: Path, seed: int) -> HeldOut:
    """Train all models in a process of its own; return the held-out images and answers.

    Raises StepFailed.
    """
    await processes.run_module("coalmine_demo.training", str(training), "--seed", str(seed))
    return load_heldout(training)


async def package_models(processes: ModelCalls, training: Path, repository: Path) -> None:
    """Put every variant's model that isn't there into `repository`.

    Raises StepFailed.
    """
    models = {entry.model: [e for e in ENTRIES if e.model == entry.model] for entry in ENTRIES}
    async with asyncio.TaskGroup() as group:
        for entries in models.values():
            group.create_task(_package_versions(processes, training, repository, entries))


async def _package_versions(
    processes: ModelCalls, training: Path, repository: Path, entries: Sequence[PackagedModel]
) -> None:
    for entry in entries:
        if (repository / entry.model / entry.version).exists():
            continue
        await processes.call(
            *("package", str(training / model_file(entry.variant))),
            *("--repository", str(repository)),
            *("--name", entry.model, "--version", entry.version),
            *SIGNATURE,
        )


# ---------------------------------------------------------------- as a program


async def _train_and_package(asked: argparse.Namespace) -> int:
    """Train and package; return the exit code."""
    failures: list[str] = []
    try:
        async with DemoProcesses(asked.data / "logs", os.environ) as processes:
            await train_models(processes, asked.data, asked.seed)
            await package_models(processes, asked.data, asked.repository)
    except* StepFailed as group:
        failures = [str(error) for error in step_failures(group)]
    return _print_line(failures[0], EXIT_FAILED) if failures else EXIT_OK


def parse_arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the program, read. Exits where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m coalmine_demo.models",
        description="Train the digits models and package them. What is there already stays.",
    )
    parser.add_argument("data", type=Path, help="folder for models, images and answers")
    parser.add_argument("repository", type=Path, help="the model repository")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(given)


def main() -> int:
    """Train and package; return the exit code. A repository that is complete stays as it is."""
    end_at_signals()
    open_standard_streams()
    asked = parse_arguments(sys.argv[1:])
    if not is_installed():
        return _print_line(REMEDY, EXIT_CANNOT_START)
    if all((asked.repository / entry.model / entry.version).exists() for entry in ENTRIES):
        return EXIT_OK
    return run_unless_interrupted(_train_and_package(asked))


def _print_line(line: str, exit_code: int) -> int:
    sys.stderr.write(f"coalmine: {line}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
