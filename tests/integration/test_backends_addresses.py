"""A backend's addresses over real connections: who is known, who is called, who comes and goes."""

import asyncio
from pathlib import Path

import pytest

from coalmine_router.backends.resolve import SystemNames
from coalmine_router.table import Backend
from tests.doubles.backends_rig import NamesByHand, alive, called, picked, table
from tests.doubles.dns_server import DnsServer
from tests.doubles.oip_backend import Answer, OipBackend
from tests.doubles.split_route import closed_port
from tests.doubles.waiting import eventually


def port_of(backend: OipBackend) -> int:
    return int(backend.address.rpartition(":")[2])


async def test_calls_go_to_all_targets_of_a_backend() -> None:
    async with OipBackend() as one, OipBackend() as two:
        blue = Backend("blue", (one.address, f"ipv4:{two.address}"))
        async with alive(table(blue)) as rig:
            await rig.available(2)
            got = await rig.calls(60)
            assert set(got) == {one.address, two.address}
            assert min(got.values()) > 15
            assert [len(one.seen), len(two.seen)] == [got[one.address], got[two.address]]


async def test_an_address_in_two_targets_is_one_address() -> None:
    async with OipBackend() as one:
        names = NamesByHand(model=["127.0.0.1"])
        targets = (one.address, f"ipv4:{one.address}", f"model:{port_of(one)}")
        async with alive(table(Backend("blue", targets)), resolver=names) as rig:
            assert rig.reach().addresses == 1


async def test_of_two_addresses_the_one_with_fewer_calls_in_flight_is_picked() -> None:
    busy = asyncio.Event()
    async with (
        OipBackend() as one,
        OipBackend() as two,
        alive(table(Backend("blue", (one.address, two.address)))) as rig,
    ):
        await rig.available(2)
        one.script = lambda _: Answer(until=busy)
        first = next(each for each in rig.stable._available if each.name == one.address)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(called(first))
            await one.wait_seen(1)
            assert await rig.calls(20) == {two.address: 20}
            busy.set()


async def test_a_backend_that_is_not_there_is_not_ready_and_says_why() -> None:
    address = closed_port()
    async with alive(table(Backend("blue", (address,)))) as rig:
        assert not rig.stable.is_ready
        assert rig.stable.pick() is None
        await rig.until(lambda: "refused" in rig.stable.trouble.lower())
        assert rig.stable.trouble.startswith(f"backend 'blue': {address}: no connection: ")
        chosen = rig.stable.pick_any()
        assert chosen is not None
        assert chosen.name == address
        assert chosen.is_out_of_reach()


async def test_a_lost_address_gets_no_calls_until_it_is_back() -> None:
    async with (
        OipBackend() as one,
        OipBackend() as two,
        alive(table(Backend("blue", (one.address, two.address)))) as rig,
    ):
        await rig.available(2)
        await one.stop()
        await rig.available(1)
        assert await rig.calls(10) == {two.address: 10}
        await one.start()
        await rig.available(2)
        assert (await rig.calls(40))[one.address] > 5


async def test_a_retry_goes_to_another_address_or_nowhere() -> None:
    async with (
        OipBackend() as one,
        OipBackend() as two,
        alive(table(Backend("blue", (one.address, two.address)))) as rig,
    ):
        await rig.available(2)
        first = rig.stable.pick()
        assert first is not None
        second = rig.stable.pick_other(first)
        assert second is not None
        assert {first.name, second.name} == {one.address, two.address}
        await two.stop()
        await rig.available(1)
        left = rig.stable.pick()
        assert left is not None
        assert rig.stable.pick_other(left) is None


# ---------------------------------------------------------------- names


async def test_a_name_stands_for_all_its_addresses_and_moves_with_them() -> None:
    with DnsServer() as dns:
        async with OipBackend(address="127.0.0.2:0") as one:
            port = port_of(one)
            async with OipBackend(address=f"127.0.0.3:{port}") as two:
                dns.answer("model.test", ["127.0.0.2"])
                blue = Backend("blue", (dns.target("model.test", port),))
                async with alive(table(blue)) as rig:
                    assert await rig.calls(5) == {one.address: 5}
                    dns.answer("model.test", ["127.0.0.3"])
                    await rig.until(lambda: picked(rig.stable) == two.address)
                    assert await rig.calls(5) == {two.address: 5}
                    assert rig.reach().addresses == 1


async def test_an_address_that_left_dns_finishes_its_calls_and_is_closed_then() -> None:
    held = asyncio.Event()
    with DnsServer() as dns:
        async with OipBackend(address="127.0.0.2:0") as one:
            port = port_of(one)
            async with OipBackend(address=f"127.0.0.3:{port}") as two:
                dns.answer("model.test", ["127.0.0.2"])
                blue = Backend("blue", (dns.target("model.test", port),))
                async with alive(table(blue)) as rig:
                    old = rig.stable.pick()
                    assert old is not None
                    one.script = lambda _: Answer(b"late", until=held)
                    async with asyncio.TaskGroup() as tasks:
                        call = tasks.create_task(called(old, 20.0))
                        await one.wait_seen(1)
                        dns.answer("model.test", ["127.0.0.3"])
                        await rig.until(lambda: picked(rig.stable) == two.address)
                        held.set()
                        assert await call == b"late"
                    await eventually(lambda: not rig.backends._pools["blue"]._gone)


async def test_a_lookup_that_fails_keeps_the_addresses_that_are_known() -> None:
    with DnsServer() as dns:
        async with OipBackend(address="127.0.0.2:0") as one:
            dns.answer("model.test", ["127.0.0.2"])
            blue = Backend("blue", (dns.target("model.test", port_of(one)),))
            async with alive(table(blue)) as rig:
                dns.answer("model.test", [])
                await rig.until(lambda: "does not exist" in " ".join(rig.reach().troubles))
                assert await rig.calls(3) == {one.address: 3}


async def test_a_name_that_nobody_knows_is_said_to_be_the_trouble() -> None:
    blue = Backend("blue", ("nowhere:80",))
    async with alive(table(blue), resolver=NamesByHand()) as rig:
        assert rig.stable.pick_any() is None
        assert rig.stable.trouble == (
            "backend 'blue': nowhere:80: can't be looked up: nowhere does not exist"
        )


async def test_a_dns_server_that_is_silent_holds_up_no_other_backend() -> None:
    with DnsServer() as dns:
        dns.silent = True
        async with OipBackend() as one:
            blue = Backend("blue", (one.address,))
            green = Backend("green", (dns.target("model.test", 80),))
            async with alive(table(blue, green, canary="green"), is_warm=False) as rig:
                await rig.available(1)
                assert not rig.canary.is_ready


async def test_the_systems_names_are_all_addresses_of_a_host() -> None:
    names = SystemNames(lambda *_, **__: [(2, 1, 6, "", (ip, 0)) for ip in ("1.1.1.1", "::1")] * 2)
    assert await names.look_up("model") == ["1.1.1.1", "::1"]


@pytest.mark.parametrize("target", ["unix:{}/model.sock", "unix://{}/model.sock"])
async def test_a_socket_is_an_address_like_any_other(target: str, tmp_path: Path) -> None:
    path = target.format(tmp_path)
    async with alive(table(Backend("blue", (path,)))) as rig:
        assert rig.reach().troubles[0].startswith(f"{path}: no connection")
