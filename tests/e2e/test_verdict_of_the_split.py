"""What callers get decides too: by real processes, which side of the split answers with errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.doubles.inference_server import FakeInference, serving
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import Caller, caller_of, judged_canary, router
from tests.doubles.waiting import until

REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, "expected FP64")
BROKEN = (grpc.StatusCode.INTERNAL, "the model failed")


@dataclass
class Sides:
    """A route that gives stable and canary half of the requests each, and copies nothing."""

    stable: FakeInference
    canary: FakeInference
    running: Started
    folder: Path
    caller: Caller

    def ask(self, count: int) -> None:
        for _ in range(count):
            with suppress(grpc.RpcError):
                self.caller.infer()

    def verdict(self) -> Any:
        at = {"COALMINE_CONTROL": self.running.address("control")}
        said = ran("status", "digits", "--json", folder=self.folder, environment=at).stdout
        comparisons = json.loads(said)["comparisons"]
        return comparisons[0]["verdict"] if comparisons else {"verdict": None, "gates": []}

    def spells(self) -> int:
        """Return how many spells of errors and refusals were observed."""
        return sum(each["observed"] for each in self.verdict()["gates"] if each["gate"] == "errors")


@contextmanager
def sides_of(folder: Path) -> Iterator[Sides]:
    stable, canary = FakeInference(), FakeInference()
    with serving(stable) as at_stable, serving(canary) as at_canary:
        file = judged_canary(folder, at_stable, at_canary, 0.01)
        text = yaml.safe_load(file.read_text())
        (route,) = text["routes"]
        route |= {"weights": {"stable": 50, "canary": 50}, "gates": {"spell": "2s"}}
        del route["shadows"]
        file.write_text(yaml.safe_dump(text))
        with router(file) as running, caller_of(running) as caller:
            yield Sides(stable, canary, running, folder, caller)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("error", "word"), [(REFUSED, "refusals"), (BROKEN, "errors")])
def test_a_canary_that_fails_its_whole_share_fails(
    tmp_path: Path, error: tuple[grpc.StatusCode, str], word: str
) -> None:
    with sides_of(tmp_path) as sides:
        sides.canary.errors = repeat(error)

        def has_failed() -> bool:
            sides.ask(10)
            return bool(sides.verdict()["verdict"] == "fail")

        until(has_failed, 60)
        assert f"{word} were the candidate's" in sides.verdict()["reason"]


@pytest.mark.timeout(120)
def test_what_callers_do_wrong_on_both_sides_fails_nobody(tmp_path: Path) -> None:
    with sides_of(tmp_path) as sides:
        sides.canary.errors = sides.stable.errors = repeat(REFUSED)

        def has_seen_enough() -> bool:
            sides.ask(10)
            return sides.spells() >= 6

        until(has_seen_enough, 60)
        assert sides.verdict()["verdict"] == "inconclusive"
