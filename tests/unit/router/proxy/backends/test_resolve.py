import asyncio
import socket
import threading
from typing import Any

import pytest

from coalmine_router.proxy.backends.resolve import LookupFailed, Resolver, SystemNames
from coalmine_router.proxy.backends.targets import Lookup


def found(*ips: str) -> list[tuple[Any, ...]]:
    return [(0, 0, 0, "", (ip, 0)) for ip in ips]


async def test_an_address_that_is_found_twice_is_one() -> None:
    names = SystemNames(lambda *_, **__: found("1.1.1.1", "::1", "1.1.1.1"))
    assert await names.addresses("model") == ["1.1.1.1", "::1"]


async def test_a_name_that_the_system_does_not_know_says_why() -> None:
    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(LookupFailed, match="Name or service not known"):
        await SystemNames(unknown).addresses("model")


async def test_a_name_that_is_none_is_a_failed_lookup() -> None:
    with pytest.raises(LookupFailed):
        await Resolver().addresses(Lookup("x" * 70 + ".test", 80))


async def test_a_hanging_lookup_holds_up_no_other_and_is_not_begun_twice() -> None:
    over, begun = threading.Event(), []

    def sometimes(host: str, *_: object, **__: object) -> Any:
        begun.append(host)
        if host == "hanging":
            over.wait()
        return found("1.1.1.1")

    names = SystemNames(sometimes)
    try:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await names.addresses("hanging")
        assert await names.addresses("quick") == ["1.1.1.1"]
        assert begun == ["hanging", "quick"]
    finally:
        over.set()
    assert await names.addresses("hanging") == ["1.1.1.1"]


async def test_lookups_that_hang_are_bounded() -> None:
    over = threading.Event()

    def hanging(*_: object, **__: object) -> Any:
        over.wait()
        return found("1.1.1.1")

    names = SystemNames(hanging)
    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(names.addresses(f"name-{n}")) for n in range(32)]
            await asyncio.sleep(0)
            with pytest.raises(LookupFailed, match="32 names are being looked up"):
                await names.addresses("one-more")
            over.set()
        assert all(each.result() == ["1.1.1.1"] for each in waiting)
    finally:
        over.set()


async def test_a_dns_server_by_name_is_refused() -> None:
    with pytest.raises(LookupFailed, match="expected an IP address"):
        await Resolver().addresses(Lookup("model", 80, "dns.test"))
