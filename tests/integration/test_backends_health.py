"""Whether an address can answer: its own word, its silence, and what calls to it had come to."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine_router.backends.ejection import EjectionRules
from coalmine_router.backends.intervals import Intervals
from coalmine_router.table import Backend
from tests.doubles.backend_process import backend_process
from tests.doubles.backends_rig import BackendsRig, alive, called, table
from tests.doubles.oip_backend import OipBackend, failing, hanging
from tests.doubles.waiting import eventually


async def test_a_server_without_a_health_service_is_available_once_connected() -> None:
    async with OipBackend() as one, alive(table(Backend("blue", (one.address,)))) as rig:
        assert rig.stable.is_ready
        assert rig.reach().available == 1


async def test_an_address_that_says_not_serving_gets_no_calls_until_it_says_otherwise() -> None:
    async with OipBackend(health=True) as one:
        await one.says(serving=False)
        async with alive(table(Backend("blue", (one.address,)))) as rig:
            await rig.until(lambda: "says NOT_SERVING" in rig.stable.trouble)
            assert rig.stable.pick() is None
            chosen = rig.stable.pick_any()
            assert chosen is not None
            assert not chosen.is_out_of_reach()
            await one.says(serving=True)
            await rig.available(1)
            await one.says(serving=False)
            await rig.available(0)


async def test_a_server_that_comes_back_is_asked_for_its_health_anew() -> None:
    async with OipBackend(health=True) as one, alive(table(Backend("blue", (one.address,)))) as rig:
        await rig.available(1)
        await one.stop()
        await rig.available(0)
        await one.says(serving=False)
        await one.start()
        await rig.until(lambda: "says NOT_SERVING" in rig.stable.trouble)
        assert rig.stable.pick() is None
        await one.says(serving=True)
        await rig.available(1)
        assert await rig.calls(1) == {one.address: 1}


async def test_a_stopped_process_gets_no_calls_though_its_connection_stands() -> None:
    async with OipBackend(health=True) as one:
        with backend_process() as other:
            backend = Backend("blue", (one.address, other.address))
            async with alive(table(backend)) as rig:
                await rig.available(2)
                other.freeze()
                await rig.available(1)
                assert rig.reach().troubles == [f"{other.address}: does not answer"]
                assert await rig.calls(10) == {one.address: 10}
                other.thaw()
                await rig.available(2)


async def test_a_call_that_nobody_answered_has_the_address_probed_at_once() -> None:
    seldom = Intervals(probe_every_s=300.0, probe_deadline_s=0.1, probe_pause_s=0.01)
    with backend_process() as one:
        async with alive(table(Backend("blue", (one.address,))), intervals=seldom) as rig:
            await rig.available(1)
            address = rig.stable.pick()
            assert address is not None
            one.freeze()
            with pytest.raises(grpc.aio.AioRpcError):
                await called(address, 0.1)
            assert rig.stable.is_ready
            rig.stable.note_failure(address)
            await rig.available(0)
            assert "does not answer" in rig.stable.trouble


class Heard(grpc.aio.ServerInterceptor):
    """Keeps the tokens that calls show."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        for key, value in details.invocation_metadata:
            if key == "authorization":
                self.tokens.add(value)
        return await continuation(details)


async def test_health_is_asked_for_with_the_token_of_the_backends_file(tmp_path: Path) -> None:
    heard = Heard()
    file = tmp_path / "token"
    file.write_text("first\n")
    server = grpc.aio.server(interceptors=[heard])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    backend = Backend("blue", (f"127.0.0.1:{port}",), token_file=str(file))
    try:
        async with alive(table(backend)) as rig:
            await rig.available(1)
            assert rig.stable.token_metadata == (("authorization", "Bearer first"),)
            assert heard.tokens == {"Bearer first"}
            file.write_text("second\n")
            await eventually(
                lambda: rig.stable.token_metadata == (("authorization", "Bearer second"),)
            )
            await eventually(lambda: "Bearer second" in heard.tokens)
    finally:
        await server.stop(None)


class Nonsense(grpc.GenericRpcHandler):
    """Answers what no health service would, and counts how often it was probed."""

    def __init__(self) -> None:
        self.probes = 0

    def service(self, details: Any) -> Any:
        async def one(_body: bytes, _context: Any) -> bytes:
            self.probes += 1
            return b"\xff"

        async def several(_body: bytes, _context: Any) -> Any:
            yield b"\xff"

        if details.method.endswith("/Watch"):
            return grpc.unary_stream_rpc_method_handler(several)
        return grpc.unary_unary_rpc_method_handler(one)


async def test_a_server_that_answers_nonsense_about_its_health_is_alive() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((nonsense := Nonsense(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with alive(table(Backend("blue", (f"127.0.0.1:{port}",)))) as rig:
            await rig.available(1)
            await eventually(lambda: nonsense.probes > 2)
            assert rig.stable.is_ready
    finally:
        await server.stop(None)


# ---------------------------------------------------------------- ejection


async def fail(rig: BackendsRig, failures: int) -> None:
    """Call stable until so many calls have failed, and report each call's end as the proxy does."""
    while failures:
        address = rig.stable.pick()
        assert address is not None
        try:
            await called(address, 0.5)
        except grpc.aio.AioRpcError:
            rig.stable.note_failure(address)
            failures -= 1
        else:
            rig.stable.note_answer(address)


async def test_an_address_whose_calls_keep_failing_is_out_for_a_while_and_returns() -> None:
    async with OipBackend(failing(grpc.StatusCode.UNAVAILABLE)) as bad, OipBackend() as good:
        backend = Backend("blue", (bad.address, good.address))
        async with alive(table(backend)) as rig:
            await rig.available(2)
            await fail(rig, 3)
            assert rig.reach().available == 1
            assert rig.reach().troubles == [
                f"{bad.address}: is out for a while: calls to it kept failing"
            ]
            assert await rig.calls(20) == {good.address: 20}
            await rig.available(2)


async def test_what_fails_for_one_variant_stays_available_to_its_neighbour() -> None:
    async with OipBackend(failing(grpc.StatusCode.UNAVAILABLE)) as bad, OipBackend() as good:
        backend = Backend("blue", (bad.address, good.address))
        async with alive(table(backend), rules=EjectionRules(failures=3)) as rig:
            await rig.available(2)
            await fail(rig, 3)
            assert rig.reach("stable").available == 1
            assert rig.reach("canary").available == 2


async def test_the_only_address_is_never_ejected() -> None:
    async with OipBackend(hanging()) as one, alive(table(Backend("blue", (one.address,)))) as rig:
        address = rig.stable.pick()
        assert address is not None
        for _ in range(50):
            rig.stable.note_failure(address)
        assert rig.stable.pick() is address
