"""Backends over table changes and file changes: what stays, what goes, and nothing in between."""

import asyncio
from pathlib import Path

import pytest

from coalmine.errors import InvalidRequest
from coalmine_router.table import Backend, BackendTls
from tests.doubles.backends_rig import NamesByHand, alive, called, picked, table
from tests.doubles.certificates import Authority
from tests.doubles.oip_backend import Answer, OipBackend
from tests.doubles.tls_server import TlsServer


async def test_endpoints_and_connections_stay_over_a_table_of_the_same_backends() -> None:
    async with OipBackend() as one:
        blue = Backend("blue", (one.address,))
        async with alive(table(blue)) as rig:
            endpoints, address = rig.stable, rig.stable.pick()
            rig.backends.follow(table(blue, revision=2))
            assert rig.stable is endpoints
            assert rig.stable.pick() is address


async def test_the_ready_addresses_of_a_variant_are_asked_for_by_name() -> None:
    async with (
        OipBackend() as one,
        OipBackend() as two,
        alive(table(Backend("blue", (one.address, two.address, "127.0.0.1:1")))) as rig,
    ):
        await rig.available(2)
        ready = rig.backends.ready_addresses("digits", "canary")
        assert sorted(ready) == sorted([one.address, two.address])
        assert rig.backends.ready_addresses("digits", "unknown") == ()
        assert rig.backends.ready_addresses("unknown", "stable") == ()


async def test_a_target_that_is_added_is_connected_before_it_gets_calls() -> None:
    async with (
        OipBackend() as one,
        OipBackend() as two,
        alive(table(Backend("blue", (one.address,)))) as rig,
    ):
        endpoints = rig.stable
        rig.backends.follow(table(Backend("blue", (one.address, two.address))))
        assert rig.stable is endpoints
        assert await rig.calls(1) == {one.address: 1}
        await rig.available(2)
        assert (await rig.calls(40))[two.address] > 5


async def test_a_backend_moves_to_another_target_without_being_unready() -> None:
    async with (
        OipBackend() as one,
        OipBackend() as two,
        alive(table(Backend("blue", (one.address,)))) as rig,
    ):
        rig.backends.follow(table(Backend("blue", (two.address,))))
        assert picked(rig.stable) == one.address
        await rig.until(lambda: picked(rig.stable) == two.address)
        assert rig.reach().addresses == 1


async def test_calls_on_a_backend_that_is_gone_from_the_table_finish() -> None:
    held = asyncio.Event()
    async with OipBackend(lambda _: Answer(b"late", until=held)) as old, OipBackend() as new:
        blue, green = Backend("blue", (old.address,)), Backend("green", (new.address,))
        async with alive(table(blue)) as rig:
            address = rig.stable.pick()
            assert address is not None
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(called(address, 20.0))
                await old.wait_seen(1)
                rig.backends.follow(table(green))
                await rig.available(1)
                assert picked(rig.stable) == new.address
                held.set()
                assert await call == b"late"


async def test_a_table_with_wrong_files_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    async with OipBackend() as one:
        blue = Backend("blue", (one.address,))
        async with alive(table(blue)) as rig:
            endpoints = rig.stable
            green = Backend("green", (one.address,), BackendTls(ca=str(wrong)))
            with pytest.raises(InvalidRequest, match=r"backend 'green': .*ca\.pem"):
                rig.backends.follow(table(Backend("blue", ("127.0.0.9:1",)), green))
            assert rig.stable is endpoints
            assert await rig.calls(2) == {one.address: 2}
            missing = Backend("blue", (one.address,), token_file=str(tmp_path / "none"))
            with pytest.raises(InvalidRequest, match="none"):
                rig.backends.follow(table(missing))


# ---------------------------------------------------------------- TLS


async def test_with_tls_the_name_is_verified_and_not_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = BackendTls(ca=str(authority.ca))
    # The certificate is localhost's: it says nothing of 127.0.0.2, and nothing of model.test.
    async with TlsServer(authority.server(), host="127.0.0.2") as server:
        names = {"localhost": ["127.0.0.2"], "model.test": ["127.0.0.2"]}
        good = Backend("good", (f"localhost:{server.port}",), tls)
        bad = Backend("bad", (f"model.test:{server.port}",), tls)
        async with alive(table(good, bad, canary="bad"), resolver=NamesByHand(**names)) as rig:
            await rig.available(1, "stable")
            address = rig.stable.pick()
            assert address is not None
            await called(address)
            await rig.until(lambda: "no connection: " in rig.canary.trouble)
            assert not rig.canary.is_ready


async def test_a_server_name_is_verified_in_the_place_of_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with TlsServer(authority.server(), host="127.0.0.2") as server:
        names = NamesByHand(**{"model.test": ["127.0.0.2"]})
        tls = BackendTls(ca=str(authority.ca), server_name="localhost")
        targets = (f"model.test:{server.port}",)
        async with alive(table(Backend("blue", targets, tls)), resolver=names) as rig:
            await rig.available(1)
            address = rig.stable.pick()
            assert address is not None
            await called(address)


async def test_new_certificates_are_shown_on_new_connections_and_no_call_fails(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    client = authority.client()
    tls = BackendTls(str(authority.ca), str(client.cert), str(client.key))
    async with (
        TlsServer(authority.server(), client_ca=authority.ca) as server,
        alive(table(Backend("blue", (server.address,), tls))) as rig,
    ):
        await rig.available(1)
        old = rig.stable.pick()
        assert old is not None
        await called(old)
        authority.client()
        async with asyncio.timeout(10):
            while rig.stable.pick() is old:
                await called(old)
        new = rig.stable.pick()
        assert new is not None
        await called(new)
        assert len(server.peers) == 2
