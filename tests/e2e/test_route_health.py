"""What `coalmine status` says first, of a router and backends that run."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.doubles.inference_server import FakeInference, serving
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import caller_of, judged_canary, router
from tests.doubles.waiting import until

NOT_SERVING = 5

Asked = Callable[..., CompletedProcess[str]]


def asking(running: Started, folder: Path) -> Asked:
    at = {"COALMINE_CONTROL": running.address("control")}

    def ask(*options: str) -> CompletedProcess[str]:
        return ran("status", "digits", *options, folder=folder, environment=at)

    return ask


@pytest.mark.timeout(120)
def test_a_pass_is_no_comfort_while_stable_is_down(tmp_path: Path) -> None:
    with ExitStack() as stable, serving(FakeInference()) as canary:
        file = judged_canary(tmp_path, stable.enter_context(serving(FakeInference())), canary, 0.2)
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
