"""What may be slow, stuck or dead without a caller noticing: shadow, collector, control process."""

import os
import signal
from pathlib import Path

import pytest

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.processes import Started
from tests.doubles.router_setup import caller_of, configuration, control_of, router
from tests.doubles.waiting import until

REQUESTS = 100


def shadowed(folder: Path, server: Started, shadow: str) -> Path:
    """Write a configuration whose shadow, at 100 %, is somewhere else."""
    file = configuration(
        folder,
        server.address("grpc"),
        variants={
            "stable": {"backend": "blue", "version": "1"},
            "away": {"backend": "grey", "version": "1"},
        },
        shadows={"away": {"share": 100, "timeout": "1s"}},
    )
    text = file.read_text()
    grey = f"backends:\n  grey:\n    targets:\n    - {shadow}\n"
    file.write_text(text.replace("backends:\n", grey, 1))
    return file


@pytest.mark.parametrize("shadow", ["silent", "dead"])
def test_a_shadow_that_is_silent_or_dead_fails_no_request_and_is_counted(
    shadow: str, server: Started, black_hole: str, tmp_path: Path
) -> None:
    address = black_hole if shadow == "silent" else "127.0.0.1:9"
    with router(shadowed(tmp_path, server, address)) as running, control_of(running) as control:
        with caller_of(running) as caller:
            assert caller.variants(REQUESTS) == {"stable": REQUESTS}
        asked = pb.GetRouteRequest(route="digits")

        def all_accounted() -> bool:
            [counts] = control.GetRoute(asked, timeout=10).shadows
            return counts.offered == REQUESTS == counts.sent + sum(counts.dropped.values())

        until(all_accounted, 90)


def test_a_collector_that_never_answers_fails_no_request(
    server: Started, black_hole: str, tmp_path: Path
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{black_hole}"}
    file = configuration(tmp_path, server.address("grpc"))
    with router(file, environment=environment) as running:
        with caller_of(running) as caller:
            assert caller.variants(REQUESTS) == {"stable": REQUESTS}
        assert running.stop() == 0


def test_a_control_process_that_is_stopped_fails_no_request_and_catches_up(
    server: Started, tmp_path: Path
) -> None:
    with router(configuration(tmp_path, server.address("grpc"))) as running:
        control_pid = running.child("control")
        os.kill(control_pid, signal.SIGSTOP)
        try:
            with caller_of(running) as caller:
                assert caller.variants(REQUESTS) == {"stable": REQUESTS}
        finally:
            os.kill(control_pid, signal.SIGCONT)
        with control_of(running) as control:
            asked = pb.GetRouteRequest(route="digits")

            def caught_up() -> bool:
                variants = control.GetRoute(asked, timeout=10).variants
                return {each.name: each.requests for each in variants}["stable"] == REQUESTS

            until(caught_up, 30)
