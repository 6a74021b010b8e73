"""The router's processes: started, killed one by one and all at once, and ended."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.inference_server import FakeInference, Outputs, serving, sums
from tests.doubles.processes import Started, alive, begin, ran
from tests.doubles.router_setup import (
    GRACE_S,
    caller_of,
    configuration,
    control_of,
    router,
    set_weights,
)
from tests.doubles.waiting import until


def ended(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(map(alive, pids))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_with_exit_code_0(
    sign: signal.Signals, server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file, workers=2) as running:
        children = list(running.children())
        assert len(children) == 3
        with caller_of(running) as caller:
            caller.infer()
        assert running.stop(sign) == 0
        assert not any(map(alive, children))


def test_a_request_that_hangs_holds_up_the_end_no_longer_than_the_grace_period(
    tmp_path: Path,
) -> None:
    entered, released = threading.Event(), threading.Event()

    def hang(arrays: Mapping[str, Any]) -> Outputs:
        entered.set()
        released.wait(30)
        return sums(arrays)

    with serving(FakeInference(hang)) as address:
        file = configuration(tmp_path, address, timeout="60s")
        try:
            with router(file) as running, caller_of(running) as caller:
                hanging = caller.begin()
                assert entered.wait(20)
                began_s = time.monotonic()
                assert running.stop() == 0
                assert time.monotonic() - began_s < GRACE_S
                assert hanging.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        finally:
            released.set()


def test_killing_the_control_process_fails_no_request_and_it_comes_back(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running, caller_of(running) as caller:
        with control_of(running) as control:
            changed = set_weights(control, canary=2_500)
        victim = running.child("control")
        os.kill(victim, signal.SIGKILL)
        assert caller.variants(400) == {"stable": 300, "canary": 100}
        until(lambda: any("control" in words for words in running.children().values()), 20)
        assert running.child("control") != victim
        with control_of(running) as control:
            asked = pb.GetRouteRequest(route="digits")
            until(lambda: len(control.GetRoute(asked, timeout=10).proxies) == 1, 20)
            again = set_weights(control, canary=5_000)
        assert again.revision == changed.revision + 1
        assert again.proxies_current == again.proxies == 1
        assert caller.variants(100) == {"stable": 50, "canary": 50}


def test_a_killed_proxy_is_started_again(server: Started, tmp_path: Path) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running:
        killed = running.child("proxy")
        os.kill(killed, signal.SIGKILL)

        def answers() -> bool:
            with caller_of(running) as caller:
                try:
                    return caller.infer()[1] == "stable"
                except grpc.RpcError:
                    return False

        until(answers, 20)
        assert running.child("proxy") != killed


def test_no_process_outlives_the_one_that_started_it(server: Started, tmp_path: Path) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file, workers=2) as running:
        children = list(running.children())
        assert len(children) == 3, "control and two proxies"
        running.kill()
        until(ended(children), 20)


def test_after_a_kill_of_everything_weights_and_history_are_there(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running, control_of(running) as control:
        for canary in (1_000, 2_000, 1_234):
            last = set_weights(control, canary=canary)
        children = list(running.children())
        for pid in [*children, running.pid]:
            os.kill(pid, signal.SIGKILL)
        running.kill()
        until(ended(children), 20)
    with router(file) as running, control_of(running) as control:
        status = control.GetRoute(pb.GetRouteRequest(route="digits"), timeout=10)
        history = control.GetHistory(pb.GetHistoryRequest(route="digits"), timeout=10).changes
        assert status.revision == last.revision
        assert {each.name: each.weight_bp for each in status.route.variants}["canary"] == 1_234
        assert [each.after.weights_bp["canary"] for each in history] == [1_234, 2_000, 1_000, 0]
        assert {(each.actor, each.reason) for each in history[:3]} == {("tester", "test")}
        with caller_of(running) as caller:
            assert caller.infer()[2] == last.revision


def test_of_two_changes_with_one_expected_revision_the_second_is_refused(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running, control_of(running) as control:
        before = control.ListRoutes(pb.ListRoutesRequest(), timeout=10).revision
        set_weights(control, expect=before, canary=1_000)
        with pytest.raises(grpc.RpcError) as caught:
            set_weights(control, expect=before, canary=9_000)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        environment = {"COALMINE_CONTROL": running.address("control")}
        arguments = ("weights", "digits", "canary=20", "--expect-revision", str(before))
        by_cli = ran(*arguments, folder=tmp_path, environment=environment)
        assert by_cli.returncode != 0
        assert "ABORTED" in by_cli.stderr


def test_weight_for_an_unknown_or_unready_variant_is_refused(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(
        tmp_path,
        server.address("grpc"),
        variants={
            "stable": {"backend": "blue", "version": "1"},
            "absent": {"backend": "blue", "version": "77"},
        },
    )
    with router(file) as running, control_of(running) as control:
        for variant, code in (
            ("absent", grpc.StatusCode.FAILED_PRECONDITION),
            ("nobody", grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                set_weights(control, **{variant: 1_000})
            assert caught.value.code() is code
        with caller_of(running) as caller:
            assert caller.variants(100) == {"stable": 100}


# ---------------------------------------------------------------- what can't start


def refused(tmp_path: Path, file: Path) -> str:
    """Run a router that can't start; return its one line."""
    done = ran("router", "run", "--config", file, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("coalmine: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_wrong_file_is_one_line_that_names_the_place(tmp_path: Path) -> None:
    file = configuration(tmp_path, "127.0.0.1:1", weights={"stable": 100, "canary": 1})
    assert "weights add up to 101%" in refused(tmp_path, file)
    file = configuration(tmp_path, "127.0.0.1:1", wieghts={"stable": 100})
    assert "routes.0.wieghts: unknown key" in refused(tmp_path, file)
    assert "no such file" in refused(tmp_path, tmp_path / "absent.yaml")


@pytest.mark.parametrize("key", ["listen", "http", "control"])
def test_a_port_in_use_is_one_line_and_nothing_starts(key: str, tmp_path: Path) -> None:
    file = configuration(tmp_path, "127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = file.read_text()
        if key == "control":
            text = text.replace("listen: 127.0.0.1:0\n  state", f"listen: {address}\n  state")
        else:
            text = text.replace(f"\n{key}: 127.0.0.1:0", f"\n{key}: {address}")
        file.write_text(text)
        assert f"cannot listen on {address}: address already in use" in refused(tmp_path, file)
    assert not (tmp_path / "state").exists()


def test_attributes_of_spans_that_cannot_be_read_are_one_line_and_nothing_else(
    tmp_path: Path,
) -> None:
    file = configuration(tmp_path, "127.0.0.1:1")
    odd = {"OTEL_RESOURCE_ATTRIBUTES": "a,=b"}
    done = ran("router", "control", "--config", file, folder=tmp_path, environment=odd)
    told = "OTEL_RESOURCE_ATTRIBUTES: expected NAME=VALUE,NAME=VALUE, got 'a,=b'"
    assert (done.returncode, done.stderr) == (2, f"coalmine: {told}\n")


def test_a_second_router_on_the_same_state_does_not_start(server: Started, tmp_path: Path) -> None:
    file = configuration(tmp_path, server.address("grpc"))
    with router(file) as running:
        assert "another router" in refused(tmp_path, file)
        with caller_of(running) as caller:
            caller.infer()


def test_a_signal_while_starting_ends_it_too(tmp_path: Path) -> None:
    file = configuration(tmp_path, "127.0.0.1:1")
    running = begin("router", "run", "--config", file, folder=tmp_path)
    until(lambda: len(running.children()) > 0, 20)
    children = list(running.children())
    assert running.stop() == 0
    until(ended(children), 20)
