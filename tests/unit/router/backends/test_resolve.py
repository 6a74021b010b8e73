import asyncio
import socket
import threading
from typing import Any

import pytest

from coalmine_router.backends.resolve import (
    HalfAnswered,
    LookupFailed,
    Resolver,
    SystemNames,
)
from coalmine_router.backends.targets import Lookup
from tests.doubles.dns_server import DnsServer


def found(*ips: str) -> list[tuple[Any, ...]]:
    return [(0, 0, 0, "", (ip, 0)) for ip in ips]


async def test_an_address_that_is_found_twice_is_one() -> None:
    names = SystemNames(lambda *_, **__: found("1.1.1.1", "::1", "1.1.1.1"))
    assert await names.look_up("model") == ["1.1.1.1", "::1"]


async def test_a_name_that_the_system_does_not_know_says_why() -> None:
    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(LookupFailed, match="Name or service not known"):
        await SystemNames(unknown).look_up("model")


async def test_a_name_that_is_none_is_a_failed_lookup() -> None:
    with pytest.raises(LookupFailed):
        await Resolver().look_up(Lookup("x" * 70 + ".test", 80))


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
                    await names.look_up("hanging")
        assert await names.look_up("quick") == ["1.1.1.1"]
        assert begun == ["hanging", "quick"]
    finally:
        over.set()
    assert await names.look_up("hanging") == ["1.1.1.1"]


async def test_lookups_that_hang_are_bounded() -> None:
    over = threading.Event()

    def hanging(*_: object, **__: object) -> Any:
        over.wait()
        return found("1.1.1.1")

    names = SystemNames(hanging)
    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(names.look_up(f"name-{n}")) for n in range(32)]
            await asyncio.sleep(0)
            with pytest.raises(LookupFailed, match="32 names are being looked up"):
                await names.look_up("one-more")
            over.set()
        assert all(each.result() == ["1.1.1.1"] for each in waiting)
    finally:
        over.set()


async def test_a_dns_server_by_name_is_refused() -> None:
    with pytest.raises(LookupFailed, match="expected an IP address"):
        await Resolver().look_up(Lookup("model", 80, "dns.test"))


class NoThread(threading.Thread):
    """One that the system refuses, as it does when there are too many."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


async def test_where_no_thread_can_be_started_the_lookup_fails_and_the_next_is_tried() -> None:
    kinds: list[type[threading.Thread]] = [NoThread, NoThread, threading.Thread]

    def thread(**given: Any) -> threading.Thread:
        return kinds.pop(0)(**given)

    names = SystemNames(lambda *_, **__: found("1.1.1.1"), thread)
    for _ in range(2):
        with pytest.raises(LookupFailed, match="can't start new thread"):
            await names.look_up("model")
    assert await names.look_up("model") == ["1.1.1.1"]


# ---------------------------------------------------------------- a server's


def asked_of(dns: DnsServer) -> Lookup:
    return Lookup("model.test", 80, dns.address)


@pytest.mark.parametrize("unanswered", [4, 6])
async def test_a_version_that_the_server_fails_on_is_not_taken_for_none(unanswered: int) -> None:
    known = {4: "1.1.1.1", 6: "::1"}
    with DnsServer() as dns:
        dns.answer("model.test", list(known.values()))
        dns.failing_of = unanswered
        with pytest.raises(HalfAnswered, match=f"IPv{unanswered}: ") as half:
            await Resolver().look_up(asked_of(dns))
    assert half.value.beside([]) == [known[10 - unanswered]]
    assert half.value.beside(["9.9.9.9", "::9"])[1:] == ["::9" if unanswered == 6 else "9.9.9.9"]


async def test_a_version_that_times_out_is_not_taken_for_none() -> None:
    with DnsServer() as dns:
        dns.answer("model.test", ["1.1.1.1"])
        dns.silent_of = 6
        with pytest.raises(HalfAnswered, match="IPv6: the DNS server does not answer"):
            await Resolver().look_up(asked_of(dns))


async def test_a_version_that_has_no_addresses_is_an_answer() -> None:
    with DnsServer() as dns:
        dns.answer("model.test", ["1.1.1.1"])
        assert await Resolver().look_up(asked_of(dns)) == ["1.1.1.1"]


async def test_where_one_version_has_none_and_the_other_is_not_answered_the_lookup_fails() -> None:
    with DnsServer() as dns:
        dns.answer("model.test", ["1.1.1.1"])
        dns.failing_of = 4
        with pytest.raises(LookupFailed, match="no addresses") as failed:
            await Resolver().look_up(asked_of(dns))
    assert not isinstance(failed.value, HalfAnswered), "all that is known stays"
