"""The same digits from a real MLServer and from our server, compared by the router: all match."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coalmine.control.v1 import control_pb2 as pb
from tests.conformance.beside_mlserver import PROGRAM, mlserver
from tests.doubles.processes import Started
from tests.doubles.router_setup import control_of, router, set_weights
from tests.doubles.server_process import output_of, server_of
from tests.doubles.waiting import until

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="`make mlserver` installs MLServer")

IMAGES = 600


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    module = "coalmine_demo.models"
    made = [sys.executable, "-m", module, str(folder / "training"), str(folder / "models")]
    subprocess.run(made, check=True, timeout=110)
    return folder / "training"


@pytest.fixture(scope="module")
def running(training: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("beside")
    (folder / "mlserver").mkdir()
    with (
        server_of(training.parent / "models", folder) as ours,
        mlserver(PROGRAM, folder / "mlserver", training / "stable.pt") as theirs,
        router(configuration(folder, theirs, ours.address("grpc"))) as running,
    ):
        yield running


def configuration(folder: Path, mlserver: str, ours: str) -> Path:
    """Write a router.yaml: MLServer is stable, ours the canary, which gets a copy of everything."""
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"mlserver": {"targets": [mlserver]}, "ours": {"targets": [ours]}},
        "routes": [
            {
                "name": "digits",
                "match": {"model": "digits"},
                "variants": {
                    "stable": {"backend": "mlserver", "version": "1"},
                    "canary": {"backend": "ours", "version": "1"},
                },
                "shadows": {"canary": 100},
            }
        ],
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def asked(running: Started, training: Path) -> Any:
    return output_of("tests.doubles.triton_caller", running.address("data"), str(training))


def status(running: Started) -> pb.RouteStatus:
    with control_of(running) as control:
        return control.GetRoute(pb.GetRouteRequest(route="digits"), timeout=10)


def test_every_digit_that_mlserver_answers_is_answered_alike_by_ours(
    running: Started, training: Path
) -> None:
    said = asked(running, training)
    assert (said["images"], said["wrong_labels"]) == (IMAGES, 0)
    until(lambda: sum(_compared(running)) == IMAGES, 30)
    print(
        f"\nMLServer {IMAGES} answered, ours compared: match, mismatch, error, skipped:",
        _compared(running),
    )
    assert _compared(running) == (IMAGES, 0, 0, 0)


def test_half_of_the_digits_from_each_are_right_all_the_same(
    running: Started, training: Path
) -> None:
    with control_of(running) as control:
        set_weights(control, canary=5_000)
    before = _answered(running)
    said = asked(running, training)
    until(lambda: sum(_answered(running).values()) == sum(before.values()) + IMAGES, 30)
    grown = {name: count - before[name] for name, count in _answered(running).items()}
    print("\nanswered by each:", grown, said)
    assert (said["images"], said["wrong_labels"]) == (IMAGES, 0)
    assert grown == {"stable": IMAGES // 2, "canary": IMAGES // 2}


def _compared(running: Started) -> tuple[int, int, int, int]:
    counts = status(running).comparisons
    return (
        sum(each.match for each in counts),
        sum(each.mismatch for each in counts),
        sum(each.error for each in counts),
        sum(each.skipped for each in counts),
    )


def _answered(running: Started) -> dict[str, int]:
    return {each.name: each.requests for each in status(running).variants}
