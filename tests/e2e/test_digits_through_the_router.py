"""Real handwriting through real processes: right answers, exact shares, no request lost."""

import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Self

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.processes import Started, ran
from tests.doubles.router_setup import (
    Caller,
    caller_of,
    configuration,
    control_of,
    router,
    set_weights,
)
from tests.e2e.conftest import Digits

TRITON_CALLER = Path(__file__).parents[1] / "doubles" / "triton_caller.py"
CHANGES = 1_000


def test_tritonclient_gets_what_local_torch_gives_for_every_held_out_digit(
    digits: Digits, server: Started, tmp_path: Path
) -> None:
    with router(configuration(tmp_path, server.address("grpc"))) as running:
        command = [
            sys.executable,
            str(TRITON_CALLER),
            running.address("data"),
            str(digits.training),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        said = json.loads(done.stdout)
    assert said["images"] == len(digits.held_out.labels) == 600
    assert said["worst"] < 1e-4
    assert said["wrong_labels"] == 0


def test_of_ten_thousand_requests_at_ten_percent_exactly_a_thousand_are_the_canarys(
    server: Started, tmp_path: Path
) -> None:
    with router(configuration(tmp_path, server.address("grpc"))) as running:
        environment = {"COALMINE_CONTROL": running.address("control")}
        done = ran("weights", "digits", "canary=10", folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        assert "served by 1 of 1 proxies" in done.stdout
        with caller_of(running) as caller:
            assert caller.variants(10_000) == {"stable": 9_000, "canary": 1_000}


def test_a_thousand_weight_changes_fail_no_request(server: Started, tmp_path: Path) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running, control_of(running) as control, caller_of(running) as caller:
        with _Flow(caller) as flow:
            for number in range(CHANGES):
                changed = set_weights(control, canary=(number % 100) * 100 + 1)
                assert changed.proxies_current == 1
        history = control.GetHistory(pb.GetHistoryRequest(route="digits", limit=1_000), timeout=20)
        assert changed.revision == CHANGES + 1
        assert len(history.changes) == 1_000
    assert flow.failures == []
    assert flow.answered["stable"] > 100
    assert flow.answered["canary"] > 100


class _Flow:
    """Requests one after the other, for as long as the `with` lasts."""

    def __init__(self, caller: Caller) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._caller = caller
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self.answered[self._caller.infer()[1]] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed request
                self.failures.append(str(error))
