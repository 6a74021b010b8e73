"""Rules beside the models there are: refused when a router starts or reloads, and never later.

And the one rule of services that aren't inference, from a caller to an example.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from coalmine.control.v1 import control_pb2 as pb
from tests.doubles.processes import Started, ran
from tests.doubles.reports import UNUSED
from tests.doubles.router_setup import caller_of, configuration, control_of, router
from tests.doubles.waiting import until

TYPO = {"outputs": {"logitz": {"rule": "exact"}}}
RIGHT = {"outputs": {"logits": {"rule": "argmax"}, "label": {"rule": "exact"}}}
REFUSED = (
    "route 'digits': compare.outputs names 'logitz', but the model of 'stable' has label, logits"
)


def change(file: Path, **route: Any) -> None:
    """Change some keys of the file's route."""
    content = yaml.safe_load(file.read_text())
    content["routes"][0].update(route)
    file.write_text(yaml.safe_dump(content))


def test_a_rule_for_an_output_that_stable_has_not_ends_the_start_with_one_line(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"), compare=TYPO)
    done = ran("router", "run", "--config", file, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count(REFUSED) == 1
    assert "Traceback" not in done.stderr


def test_a_router_whose_stable_is_not_there_starts_and_says_that_it_could_not_ask(
    tmp_path: Path,
) -> None:
    file = configuration(tmp_path, UNUSED, compare=TYPO)
    with router(file) as running:
        assert running.log.read_text().count('"outputs_not_checked"') == 1


def test_a_reload_with_such_a_rule_keeps_what_is_in_force_and_so_does_a_crash_after_it(
    server: Started, tmp_path: Path
) -> None:
    file = configuration(tmp_path, server.address("grpc"), compare=RIGHT)
    with router(file) as running:
        first = running.child("control")
        change(file, compare=TYPO)
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: '"config_refused"' in running.log.read_text(), 30)
        assert REFUSED in running.log.read_text()
        assert running.child("control") == first, "it was found out before its end"
        os.kill(first, signal.SIGKILL)
        another_control(running, first)
        with control_of(running) as control, caller_of(running) as caller:
            assert caller.infer()[1] == "stable"
            [route] = control.ListRoutes(pb.ListRoutesRequest(), timeout=10).routes
        assert route.name == "digits"


def another_control(running: Started, gone: int) -> int:
    """Return the control process that comes after one that has ended."""
    until(lambda: gone not in (found := _controls(running)) and found != [], 20)
    return _controls(running)[0]


def _controls(running: Started) -> list[int]:
    return [pid for pid, words in running.children().items() if "control" in words]


# ---------------------------------------------------------------- another service


@contextmanager
def cart(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """Serve all methods of shop.Cart by one function of bytes; yield the address."""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            if not str(details.method).startswith("/shop.Cart/"):
                return None
            return grpc.unary_unary_rpc_method_handler(lambda body, _context: answer(body))

    served = grpc.server(ThreadPoolExecutor(4), handlers=[Handlers()])
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        served.stop(None).wait()


def service_file(folder: Path, stable: str, canary: str) -> Path:
    file = configuration(folder, stable)
    content = yaml.safe_load(file.read_text())
    content["backends"]["green"] = {"targets": [canary]}
    content["routes"] = [
        {
            "name": "cart",
            "match": {"service": "shop.Cart"},
            "variants": {"stable": {"backend": "blue"}, "canary": {"backend": "green"}},
            "shadows": {"canary": 100},
            "copy_methods": ["Total"],
        }
    ]
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.timeout(90)
def test_another_services_answers_are_compared_by_their_bytes_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    """The canary answers every third cart wrongly; Add, which changes a cart, is never copied."""
    bodies = [bytes([n, 255, 0]) * 5 for n in range(30)]
    added: list[bytes] = []

    def wrongly(body: bytes) -> bytes:
        added.append(body)
        return body[::-1] if body[0] % 3 else b"wrong" + body

    with (
        cart(lambda body: body[::-1]) as stable,
        cart(wrongly) as canary,
        router(service_file(tmp_path, stable, canary)) as running,
        grpc.insecure_channel(running.address("data")) as channel,
        control_of(running) as control,
    ):
        for method in ("Total", "Add"):
            ask: Any = channel.unary_unary(f"/shop.Cart/{method}")
            assert [ask(body, timeout=20) for body in bodies] == [body[::-1] for body in bodies]

        def status() -> pb.RouteStatus:
            return control.GetRoute(pb.GetRouteRequest(route="cart"), timeout=10)

        until(lambda: sum(each.compared for each in status().shadows) == len(bodies), 20)
        seen = status()
        kept = control.ListMismatches(pb.ListMismatchesRequest(route="cart"), timeout=10)
        one = pb.GetMismatchRequest(route="cart", id=kept.mismatches[0].id)
        whole = control.GetMismatch(one, timeout=10)
    assert sorted(added) == sorted(bodies)
    (copies,) = seen.shadows
    assert (copies.offered, dict(copies.dropped)) == (30, {}), "what may not be copied isn't drawn"
    (counts,) = seen.comparisons
    assert (counts.match, counts.mismatch, len(kept.mismatches)) == (20, 10, 10)
    assert [each.output for each in counts.outputs] == ["message"]
    assert whole.candidate_response == b"wrong" + whole.request
    assert whole.reference_response == whole.request[::-1]
