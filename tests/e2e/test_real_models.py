"""Real models of real images beside each other: what each rule finds, and how soon.

`pytest -s` prints the rates of mismatches; COALMINE_ALL_PAIRS=1 makes it all pairs by all rules.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine.tensors import Array
from coalmine_client.cli.status.status_json import status_json
from coalmine_client.client import AsyncClient
from tests.doubles.cnn_routes import ROUTES, configuration
from tests.doubles.processes import Started, ran, started
from tests.doubles.router_setup import control_of, router
from tests.doubles.waiting import until

# The first of them waits for the models to be trained.
pytestmark = pytest.mark.timeout(240)

TREE = Path(__file__).parents[2]
CALLERS = 16
VERDICT_FAILED = 3
SETTLED_S = 60.0

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What the router tells of each route after all images, and what its callers got."""

    folder: Path
    control: str
    pixels: Array
    truth: Array
    accuracy: Mapping[str, float]
    statuses: dict[str, Json] = field(default_factory=dict)
    # The labels that callers got, by route.
    labels: dict[str, Array] = field(default_factory=dict)

    def pair(self, route: str, candidate: str) -> Json:
        [found] = [
            each for each in self.statuses[route]["comparisons"] if each["candidate"] == candidate
        ]
        return dict(found)

    def verdict(self, route: str, candidate: str) -> str:
        return str(self.pair(route, candidate)["verdict"]["verdict"])

    def asked(self, *arguments: str, code: int = 0) -> Json:
        """Return what a verb of the program says as JSON, and fail where it exits otherwise."""
        environment = {"COALMINE_CONTROL": self.control}
        done = ran(*arguments, "--json", folder=self.folder, environment=environment)
        assert done.returncode == code, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("real")
    made = [sys.executable, "-m", "tests.doubles.cnn", str(folder)]
    subprocess.run(made, check=True, timeout=110, cwd=TREE)
    arguments = ("server", "run", "--model-repository", folder / "models")
    ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with ExitStack() as running:
        server = running.enter_context(started(*arguments, *ports, folder=folder))
        file = configuration(folder, server.address("grpc"))
        routing = running.enter_context(router(file))
        yield sent(folder, routing)


def sent(folder: Path, routing: Started) -> Seen:
    """Send the images through each route, one after the other, and return what came of it."""
    pixels, truth = (np.load(folder / name) for name in ("pixels.npy", "labels.npy"))
    accuracy = json.loads((folder / "accuracy.json").read_text())
    seen = Seen(folder, routing.address("control"), pixels, truth, accuracy)
    with control_of(routing) as control:
        for name, route in ROUTES.items():
            images = pixels[: route.images]
            labels = asyncio.run(labels_of(routing.address("data"), f"digits-{name}", images))
            seen.labels[name] = np.array(labels)
            seen.statuses[name] = status_json(settled(control, name, len(images)))
    return seen


# ---------------------------------------------------------------- the callers


def settled(control: RouteControlStub, route: str, requests: int) -> pb.RouteStatus:
    """Return the route's status once all copies of so many requests came to something."""
    wanted = pb.GetRouteRequest(route=route)
    until(lambda: is_settled(control.GetRoute(wanted, timeout=20), requests), SETTLED_S)
    return control.GetRoute(wanted, timeout=20)


async def labels_of(target: str, model: str, pixels: Array) -> Sequence[int]:
    """Return the label of each image, each sent alone, by so many callers at a time."""
    labels = [-1] * len(pixels)
    rows = iter(range(len(pixels)))

    async def call(client: AsyncClient) -> None:
        for row in rows:
            answer = await client.infer(model, {"pixels": pixels[row : row + 1]})
            assert answer.variant == "stable"
            labels[row] = int(answer.outputs["logits"].argmax())

    async with AsyncClient(target) as client, asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(call(client))
    return labels


def is_settled(status: pb.RouteStatus, requests: int) -> bool:
    """Whether every copy of so many requests came to a comparison, or to none, and that is told."""
    queues = len(status.route.shadows) + (status.route.noise_bp > 0)
    return (
        len(status.shadows) == queues
        and all(
            each.offered == requests
            and not each.waiting + each.under_way
            and each.answered == each.compared + each.uncompared
            for each in status.shadows
        )
        and all(map(is_told, status.comparisons))
    )


def is_told(pair: pb.ComparisonCounts) -> bool:
    """Whether the verdict is that on all of the evidence: a new word is told once it is on disk."""
    observed = {each.gate: each.observed for each in pair.verdict.gates}
    judged = pair.match + pair.mismatch
    return pair.verdict.verdict == "fail" or observed.get("mismatch") == judged


# ---------------------------------------------------------------- what is found


def test_callers_get_stables_answers_alone(seen: Seen) -> None:
    first = seen.labels["close"]
    assert float((first == seen.truth).mean()) == pytest.approx(seen.accuracy["cnn 1"])
    for name, labels in seen.labels.items():
        if ROUTES[name].model == "cnn":
            assert (labels == first[: len(labels)]).all()


def test_every_copy_of_every_image_is_compared(seen: Seen) -> None:
    for name, status in seen.statuses.items():
        for copies in status["shadows"]:
            assert copies["offered"] == copies["compared"] == ROUTES[name].images
        for pair in status["comparisons"]:
            assert pair["match"] + pair["mismatch"] == ROUTES[name].images
            assert pair["noise_pairs"] == ROUTES[name].images * ROUTES[name].noise


def test_rates_by_rule_and_pair_are_told(seen: Seen) -> None:
    lines = list(table(seen))
    print("", *lines, sep="\n")
    assert len(lines) == sum(len(status["comparisons"]) for status in seen.statuses.values())
    for name, accuracy in seen.accuracy.items():
        print(f"{name} reads {accuracy:.1%} right")


@pytest.mark.parametrize("candidate", ["scaled_twice", "unscaled"])
def test_another_scaling_of_the_input_fails_within_200_comparisons(
    seen: Seen, candidate: str
) -> None:
    verdict = seen.pair("close", candidate)["verdict"]
    assert verdict["verdict"] == gate(verdict)["finding"] == "fail"
    assert gate(verdict)["observed"] <= 200


def test_the_program_says_that_the_route_failed(seen: Seen) -> None:
    told = seen.asked("status", "close", code=VERDICT_FAILED)
    assert told["comparisons"] == seen.statuses["close"]["comparisons"]


def test_what_accuracy_does_not_see_is_seen_by_close(seen: Seen) -> None:
    # A net of ReLUs hardly changes its labels where its whole input grows.
    assert seen.accuracy["cnn 3"] > seen.accuracy["cnn 1"] - 0.02
    assert seen.verdict("argmax", "unscaled") != "fail"
    assert seen.verdict("close", "unscaled") == "fail"


def test_a_model_beside_itself_never_mismatches_and_passes(seen: Seen) -> None:
    pair = seen.pair("close", "itself")
    assert pair["mismatch"] == 0
    assert [each["max_abs_diff"] for each in pair["outputs"]] == [0, 0]
    assert pair["verdict"]["verdict"] == "pass", pair["verdict"]["reason"]


def test_a_model_that_answers_one_at_a_time_has_no_noise(seen: Seen) -> None:
    for pair in seen.statuses["noise"]["comparisons"]:
        for output in pair["outputs"]:
            assert output["noise"]["value"] == 0
            assert output["noise"]["requests"] == ROUTES["noise"].images


def test_int8_fails_by_defaults_that_are_made_for_rounding(seen: Seen) -> None:
    pair = seen.pair("close", "int8")
    assert pair["verdict"]["verdict"] == "fail"
    assert pair["mismatch"] == len(seen.pixels)


@pytest.mark.parametrize("rule", ["close_int8", "argmax", "top_k", "distribution"])
def test_int8_passes_by_what_its_callers_would_notice(seen: Seen, rule: str) -> None:
    pair = seen.pair(rule, "int8")
    assert pair["mismatch_rate"] < 0.03
    assert pair["verdict"]["verdict"] == "pass", pair["verdict"]["reason"]


@pytest.mark.parametrize("rule", ["close", "distribution"])
def test_a_model_trained_again_fails_though_it_reads_as_well(seen: Seen, rule: str) -> None:
    assert seen.accuracy["cnn 4"] > seen.accuracy["cnn 1"] - 0.02
    assert seen.verdict(rule, "retrained") == "fail"


# ---------------------------------------------------------------- with dynamic batching


def test_what_batching_changes_is_less_than_close_allows(seen: Seen) -> None:
    pair = seen.pair("batched", "itself")
    assert pair["mismatch"] == 0
    assert all(each["noise"]["value"] == 0 for each in pair["outputs"])
    assert pair["verdict"]["verdict"] == "pass", pair["verdict"]["reason"]


def test_a_model_that_mixes_rows_differs_from_itself_as_from_its_twin(seen: Seen) -> None:
    pair = seen.pair("mixing", "itself")
    for output in pair["outputs"]:
        assert output["raw"]["value"] > 0.3
        assert output["noise"]["value"] == pytest.approx(output["raw"]["value"], abs=0.25)
    # The rows of a batch differ together: counted one by one, every other run would fail.
    assert pair["verdict"]["verdict"] != "fail", pair["verdict"]["reason"]


def test_with_a_tolerance_for_it_a_model_that_mixes_rows_passes(seen: Seen) -> None:
    pair = seen.pair("mixing_tolerant", "itself")
    assert pair["mismatch"] == 0
    assert pair["verdict"]["verdict"] == "pass", pair["verdict"]["reason"]


# ---------------------------------------------------------------- the examples


def test_a_kept_mismatch_shows_the_image_that_was_sent(seen: Seen) -> None:
    listed = seen.asked("mismatches", "close", "--candidate", "scaled_twice", "--worst")
    assert len(listed["mismatches"]) == 10
    shown = seen.asked("mismatches", "close", "--show", listed["mismatches"][0]["id"])
    image = np.float32(shown["request"]["tensors"]["pixels"]["data"])
    [row] = np.flatnonzero((seen.pixels == image).all(1))
    scores = np.array(shown["reference_response"]["tensors"]["scores"]["data"])
    assert scores.sum() == pytest.approx(1)
    assert scores.argmax() == seen.labels["close"][row]


# ---------------------------------------------------------------- what is read of it


def gate(verdict: Json) -> Json:
    [found] = [each for each in verdict["gates"] if each["gate"] == "mismatch"]
    return dict(found)


def table(seen: Seen) -> Iterator[str]:
    """Yield a line for each pair: its rates, its verdict, and on how many requests that rests."""
    for rule, status in seen.statuses.items():
        for pair in status["comparisons"]:
            verdict = pair["verdict"]
            yield (
                f"{rule:16}{pair['candidate']:14}{pair['mismatch_rate']:7.1%}"
                f"  {verdict['verdict']:12} after {gate(verdict)['observed']:3}"
                f"  {'  '.join(map(told, pair['outputs']))}"
            )


def told(output: Json) -> str:
    noise = f", noise {output['noise']['value']:.1%}" if output["noise"] else ""
    return f"{output['output']}: {output['raw']['value']:.1%}{noise}, {output['max_abs_diff']:.2g}"
