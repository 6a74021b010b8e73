"""Real models of real images beside each other: what each rule finds, and how soon.

`pytest -s` prints the rates of all pairs by all rules.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub
from coalmine.tensors import Array
from coalmine_client.client import AsyncClient
from tests.doubles.processes import Started, ran, started
from tests.doubles.router_setup import control_of, router
from tests.doubles.waiting import until

pytestmark = pytest.mark.timeout(180)

TREE = Path(__file__).parents[2]
CALLERS = 16
FAILED = 3
SETTLED_S = 60.0

# Of models that answer one request at a time.
CANDIDATES = {
    "itself": ("cnn", "1"),
    "int8": ("cnn-int8", "1"),
    "retrained": ("cnn", "4"),
    "unscaled": ("cnn", "3"),
    "scaled_twice": ("cnn", "2"),
}
BY_RULE: Mapping[str, tuple[float, Mapping[str, Any]]] = {
    "close": (0.01, {}),
    "close_int8": (
        0.01,
        {
            "outputs": {
                # A step of the int8 model's logits is 0.24.
                "logits": {"rule": "close", "rtol": 0.05, "atol": 0.25},
                "scores": {"rule": "close", "rtol": 0, "atol": 0.1},
            }
        },
    ),
    "argmax": (0.05, {"default": {"rule": "argmax"}}),
    "top_k": (0.05, {"default": {"rule": "top_k", "k": 3, "min_overlap": 0.6}}),
    "distribution": (
        0.01,
        {
            "outputs": {
                "logits": {"rule": "distribution", "from": "logits"},
                "scores": {"rule": "distribution", "from": "probabilities"},
            }
        },
    ),
    "cosine": (0.01, {"default": {"rule": "cosine"}}),
}
BATCHED = ("batched", "mixing")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What the router tells of each route after all images, and what its callers got."""

    folder: Path
    control: str
    statuses: Mapping[str, Json]
    codes: Mapping[str, int]
    # The labels that callers got, by route.
    labels: Mapping[str, Array]
    pixels: Array
    truth: Array
    accuracy: Mapping[str, float]

    def pair(self, route: str, candidate: str) -> Json:
        [found] = [
            each for each in self.statuses[route]["comparisons"] if each["candidate"] == candidate
        ]
        return dict(found)

    def verdict(self, route: str, candidate: str) -> str:
        return str(self.pair(route, candidate)["verdict"]["verdict"])

    def asked(self, *arguments: str) -> Json:
        """Return what a verb of the program says as JSON."""
        environment = {"COALMINE_CONTROL": self.control}
        done = ran(*arguments, "--json", folder=self.folder, environment=environment)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("real")
    subprocess.run(
        [sys.executable, "-m", "tests.doubles.cnn", str(folder)],
        check=True,
        timeout=110,
        cwd=TREE,
        capture_output=True,
    )
    arguments = ("server", "run", "--model-repository", folder / "models")
    ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with ExitStack() as running:
        server = running.enter_context(started(*arguments, *ports, folder=folder))
        file = configuration(folder, server.address("grpc"))
        routing = running.enter_context(router(file))
        yield sent(folder, routing)


def sent(folder: Path, routing: Started) -> Seen:
    pixels, truth = (np.load(folder / name) for name in ("pixels.npy", "labels.npy"))
    routes = [*BY_RULE, *BATCHED]
    with control_of(routing) as control:
        labels = {each: answered(routing, control, each, pixels) for each in routes}
    environment = {"COALMINE_CONTROL": routing.address("control")}
    with ThreadPoolExecutor(2) as programs:
        told = programs.map(
            lambda route: ran("status", route, "--json", folder=folder, environment=environment),
            routes,
        )
        by_route = dict(zip(routes, told, strict=True))
    return Seen(
        folder=folder,
        control=routing.address("control"),
        statuses={route: json.loads(done.stdout) for route, done in by_route.items()},
        codes={route: done.returncode for route, done in by_route.items()},
        labels=labels,
        pixels=pixels,
        truth=truth,
        accuracy=json.loads((folder / "accuracy.json").read_text()),
    )


# ---------------------------------------------------------------- the router's file


def configuration(folder: Path, backend: str) -> Path:
    """Write a router.yaml with a route for each rule, and one for each model that batches."""
    routes = [
        route(name, "cnn", CANDIDATES, rate, compare) for name, (rate, compare) in BY_RULE.items()
    ]
    routes += [
        route(name, f"cnn-{name}", {"itself": (f"cnn-{name}", "1")}, 0.01, {}) for name in BATCHED
    ]
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"blue": {"targets": [backend]}},
        "routes": routes,
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def route(
    name: str,
    model: str,
    candidates: Mapping[str, tuple[str, str]],
    rate: float,
    compare: Mapping[str, Any],
) -> dict[str, Any]:
    models = {"stable": (model, "1"), **candidates}
    all_of_them = {"share": 100, "timeout": "30s"}
    return {
        "name": name,
        "match": {"model": f"digits-{name}"},
        "variants": {
            variant: {"backend": "blue", "model": its_model, "version": version}
            for variant, (its_model, version) in models.items()
        },
        "shadows": dict.fromkeys(candidates, all_of_them),
        "noise": all_of_them,
        "compare": dict(compare),
        "gates": {"max_mismatch_rate": rate},
        "kept": {"newest": 5, "worst": 5},
    }


# ---------------------------------------------------------------- the callers


def answered(routing: Started, control: RouteControlStub, route: str, pixels: Array) -> Array:
    """Return the label of each image; once all that it gave cause for was compared."""
    labels = asyncio.run(labels_of(routing.address("data"), f"digits-{route}", pixels))
    wanted = pb.GetRouteRequest(route=route)
    until(
        lambda: is_settled(control.GetRoute(wanted, timeout=20), len(pixels)), timeout_s=SETTLED_S
    )
    return np.array(labels)


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
    """Whether every copy of so many requests came to a comparison, or to none."""
    lanes = len(status.route.shadows) + 1
    return len(status.shadows) == lanes and all(
        each.offered == requests
        and not each.waiting + each.under_way
        and each.answered == each.compared + each.uncompared
        for each in status.shadows
    )


# ---------------------------------------------------------------- what is found


def test_callers_get_stables_answers_alone(seen: Seen) -> None:
    for route, labels in seen.labels.items():
        if route != "mixing":
            right = float((labels == seen.truth).mean())
            assert right == pytest.approx(seen.accuracy["cnn 1"])


def test_every_copy_of_every_image_is_compared(seen: Seen) -> None:
    for status in seen.statuses.values():
        for copies in status["shadows"]:
            assert copies["offered"] == copies["compared"] == len(seen.pixels)
            assert copies["dropped"] == {}
        for pair in status["comparisons"]:
            assert pair["match"] + pair["mismatch"] == pair["noise_pairs"] == len(seen.pixels)


def test_rates_by_rule_and_pair_are_told(seen: Seen) -> None:
    print()
    for line in table(seen):
        print(line)
    for name, accuracy in seen.accuracy.items():
        print(f"accuracy of {name}: {accuracy:.3f}")


@pytest.mark.parametrize("candidate", ["scaled_twice", "unscaled"])
@pytest.mark.parametrize("rule", ["close", "close_int8", "distribution", "cosine"])
def test_another_scaling_of_the_input_fails_within_200_comparisons(
    seen: Seen, rule: str, candidate: str
) -> None:
    verdict = seen.pair(rule, candidate)["verdict"]
    assert verdict["verdict"] == "fail"
    assert gate(verdict)["finding"] == "fail"
    assert gate(verdict)["observed"] <= 200
    assert seen.codes[rule] == FAILED


def test_what_reads_as_many_digits_right_still_fails(seen: Seen) -> None:
    """Nets of ReLUs keep their labels when the input grows: accuracy alone would have seen none."""
    assert seen.accuracy["cnn 3"] > seen.accuracy["cnn 1"] - 0.02
    assert seen.verdict("argmax", "unscaled") != "fail"
    assert seen.verdict("close", "unscaled") == "fail"


@pytest.mark.parametrize("rule", BY_RULE)
def test_a_model_beside_itself_never_mismatches_and_passes(seen: Seen, rule: str) -> None:
    pair = seen.pair(rule, "itself")
    assert pair["mismatch"] == 0
    assert [each["max_abs_diff"] for each in pair["outputs"]] == [0, 0]
    assert pair["verdict"]["verdict"] == "pass", pair["verdict"]["reason"]


@pytest.mark.parametrize("rule", BY_RULE)
def test_a_model_that_answers_one_at_a_time_has_no_noise(seen: Seen, rule: str) -> None:
    for pair in seen.statuses[rule]["comparisons"]:
        for output in pair["outputs"]:
            assert output["noise"]["value"] == 0
            assert output["noise"]["requests"] == len(seen.pixels)


@pytest.mark.parametrize("rule", ["close_int8", "argmax", "top_k", "distribution"])
def test_int8_passes_by_what_its_callers_care_for(seen: Seen, rule: str) -> None:
    assert seen.verdict(rule, "int8") == "pass"


def test_int8_fails_by_defaults_made_for_rounding(seen: Seen) -> None:
    pair = seen.pair("close", "int8")
    assert pair["verdict"]["verdict"] == "fail"
    assert pair["mismatch"] == len(seen.pixels)


@pytest.mark.parametrize("rule", ["close", "close_int8", "distribution", "cosine"])
def test_a_model_trained_again_is_another_model(seen: Seen, rule: str) -> None:
    assert seen.accuracy["cnn 4"] > 0.9
    assert seen.verdict(rule, "retrained") == "fail"


# ---------------------------------------------------------------- with dynamic batching


def test_close_stays_quiet_over_what_batching_changes(seen: Seen) -> None:
    pair = seen.pair("batched", "itself")
    assert pair["mismatch"] == 0
    assert pair["verdict"]["verdict"] == "pass", pair["verdict"]["reason"]
    assert all(each["noise"]["value"] == 0 for each in pair["outputs"])


def test_what_a_model_differs_from_itself_is_not_charged_to_a_candidate(seen: Seen) -> None:
    """Its rows are scaled by whichever rows they are batched with."""
    pair = seen.pair("mixing", "itself")
    assert pair["mismatch"] > 0.2 * len(seen.pixels)
    assert pair["verdict"]["verdict"] != "fail", pair["verdict"]["reason"]
    for output in pair["outputs"]:
        assert output["noise"]["value"] > 0.2
        assert output["beyond_noise"]["low"] <= 0.01


# ---------------------------------------------------------------- the examples


def test_a_kept_mismatch_shows_the_image_that_was_sent(seen: Seen) -> None:
    kept = seen.asked("mismatches", "close", "--candidate", "scaled_twice", "--worst")["mismatches"]
    assert kept
    shown = seen.asked("mismatches", "close", "--show", kept[0]["id"])
    image = np.float32(shown["request"]["tensors"]["pixels"]["data"])
    [row] = np.flatnonzero((seen.pixels == image).all(1))
    scores = np.array(shown["reference_response"]["tensors"]["scores"]["data"])
    assert scores.argmax() == seen.labels["close"][row]
    assert scores.sum() == pytest.approx(1)


# ---------------------------------------------------------------- what is read of it


def gate(verdict: Json) -> Json:
    [found] = [each for each in verdict["gates"] if each["gate"] == "mismatch"]
    return dict(found)


def table(seen: Seen) -> Iterator[str]:
    """Yield a line for each pair and rule: its rates, its verdict, and on how many it rests."""
    for rule, status in seen.statuses.items():
        for pair in status["comparisons"]:
            verdict = pair["verdict"]
            rates = "  ".join(
                f"{each['output']} {each['raw']['value']:.4f} noise {each['noise']['value']:.4f}"
                f" max {each['max_abs_diff']:.3g}"
                for each in pair["outputs"]
            )
            yield (
                f"{rule:13} {pair['candidate']:13} {pair['mismatch_rate']:.4f}  {rates}"
                f"  {verdict['verdict']} at {gate(verdict)['observed']}"
            )
