"""What `coalmine status` says first, of a router and backends that run."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from tests.doubles.inference_server import FakeInference, serving
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import caller_of, configuration, router
from tests.doubles.waiting import until

NOT_SERVING = 5

Asked = Callable[..., CompletedProcess[str]]


def configured(folder: Path, stable: str, canary: str) -> Path:
    """Write the configuration of a canary that is judged by copies of what stable answers."""
    file = configuration(
        folder,
        stable,
        variants={
            "stable": {"backend": "blue", "version": "1"},
            "canary": {"backend": "green", "version": "2"},
        },
        shadows={"canary": 100},
        gates={"max_mismatch_rate": 0.2, "min_pairs": 10},
    )
    text = yaml.safe_load(file.read_text())
    text["backends"]["green"] = {"targets": [canary]}
    file.write_text(yaml.safe_dump(text))
    return file


def asking(running: Started, folder: Path) -> Asked:
    at = {"COALMINE_CONTROL": running.address("control")}

    def ask(*options: str) -> CompletedProcess[str]:
        return ran("status", "digits", *options, folder=folder, environment=at)

    return ask


@pytest.mark.timeout(120)
def test_a_pass_is_no_comfort_while_stable_is_down(tmp_path: Path) -> None:
    with ExitStack() as stable, serving(FakeInference()) as canary:
        file = configured(tmp_path, stable.enter_context(serving(FakeInference())), canary)
        with router(file) as running, caller_of(running) as caller:
            ask = asking(running, tmp_path)
            for _ in range(60):
                caller.infer()
            passed = ask("--until-verdict", "--timeout", "30s")
            assert passed.stdout.splitlines()[0] == "SERVING"
            assert (passed.returncode, passed.stderr) == (0, "")
            stable.close()
            until(lambda: ask().stdout.startswith("DOWN: stable is not ready: "), 20)
            down = ask()
        assert down.returncode == NOT_SERVING
        assert "PASS     canary" in down.stdout
        assert down.stderr.startswith("coalmine: status: DOWN: stable is not ready: ")
