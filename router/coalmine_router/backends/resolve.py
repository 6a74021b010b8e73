"""Resolves names to addresses off the loop, by the system or by a DNS server."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Protocol

import dns.asyncresolver
import dns.exception
import dns.resolver

from coalmine_router.backends.targets import Lookup, dns_server_of

# A silent name server keeps a thread waiting. So many threads may wait.
_THREADS_MAX: Final = 32
_LIFETIME_S: Final = 2.0

# As socket.getaddrinfo.
GetAddrInfo = Callable[..., Sequence[tuple[Any, ...]]]
# As threading.Thread.
MakesThread = Callable[..., threading.Thread]


class LookupFailed(Exception):
    """A name has no addresses, or no server answered."""


class HalfAnswered(LookupFailed):
    """A name has the addresses `found`, but the other IP version got no answer."""

    def __init__(self, found: Sequence[str], unanswered: int, why: str) -> None:
        super().__init__(why)
        self._system_addresses = found
        self._unanswered = unanswered

    def beside(self, known: Iterable[str]) -> list[str]:
        """Return what was found, and the `known` addresses of the version without an answer."""
        kept = (ip for ip in known if ip_address(ip).version == self._unanswered)
        return [*self._system_addresses, *kept]


class Resolves(Protocol):
    """Looks names up."""

    async def look_up(self, lookup: Lookup) -> list[str]:
        """Return the IP addresses of a name, at least one. Raises LookupFailed."""
        ...


class Resolver:
    """Asks the system, or the DNS server that the lookup names."""

    def __init__(self, getaddrinfo: GetAddrInfo = socket.getaddrinfo) -> None:
        self._system = SystemNames(getaddrinfo)

    async def look_up(self, lookup: Lookup) -> list[str]:
        """Return the IP addresses of a name, at least one. Raises LookupFailed."""
        if lookup.server:
            return await ask_server(lookup)
        return await self._system.look_up(lookup.host)


# ---------------------------------------------------------------- the system's


class SystemNames:
    """Looks up names by getaddrinfo, each in a thread of its own.

    Such a thread can't be stopped, and may outlive its caller. So their number is bounded. Two
    lookups of one name share a thread. The exit of the process waits for none.
    """

    def __init__(self, getaddrinfo: GetAddrInfo, thread: MakesThread = threading.Thread) -> None:
        self._getaddrinfo = getaddrinfo
        self._thread = thread
        self._under_way: dict[str, asyncio.Future[list[str] | str]] = {}

    async def look_up(self, host: str) -> list[str]:
        """Return the host's IP addresses. Raises LookupFailed."""
        found = await asyncio.shield(self._under_way.get(host) or self._begin_lookup(host))
        if isinstance(found, str):
            raise LookupFailed(found)
        return found

    def _begin_lookup(self, host: str) -> "asyncio.Future[list[str] | str]":
        if len(self._under_way) >= _THREADS_MAX:
            raise LookupFailed(f"{_THREADS_MAX} names are being looked up already")
        loop = asyncio.get_running_loop()
        thread = self._thread(
            target=self._look_up_in_thread, args=(host, loop), name=f"lookup-{host}", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            raise LookupFailed(f"no thread to look it up in: {error}") from None
        answer = self._under_way[host] = loop.create_future()
        return answer

    def _look_up_in_thread(self, host: str, loop: asyncio.AbstractEventLoop) -> None:
        found = self._system_addresses(host)
        try:
            loop.call_soon_threadsafe(self._deliver_answer, host, found)
        except RuntimeError:
            return  # the loop has ended meanwhile, and no task waits

    def _deliver_answer(self, host: str, found: list[str] | str) -> None:
        answer = self._under_way.pop(host)
        if not answer.done():
            answer.set_result(found)

    def _system_addresses(self, host: str) -> list[str] | str:
        """Return the addresses, or the reason why there are none: no task may read an exception."""
        try:
            found = self._getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except (OSError, UnicodeError) as error:
            return getattr(error, "strerror", None) or str(error)
        return list(dict.fromkeys(str(each[4][0]) for each in found)) or "no addresses"


# ---------------------------------------------------------------- a server's


@dataclass(frozen=True, slots=True)
class _ServerAnswer:
    """A server's answer for one IP version; without addresses, `why`."""

    version: int
    found: list[str] = field(default_factory=list)
    why: str = ""
    is_answer: bool = True


async def ask_server(lookup: Lookup) -> list[str]:
    """Return the addresses by the lookup's DNS server: IPv4 and IPv6.

    Raises HalfAnswered where it answers for one version only, LookupFailed for no addresses.
    """
    resolver = _resolver(lookup.server)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_resolve(resolver, lookup.host, version)) for version in (4, 6)]
    said = [each.result() for each in asked]
    found = [ip for each in said for ip in each.found]
    why = "; ".join(dict.fromkeys(each.why for each in said if each.why))
    if not found:
        raise LookupFailed(why)
    for each in said:
        if not each.is_answer:
            raise HalfAnswered(found, each.version, f"IPv{each.version}: {each.why}")
    return found


def _resolver(server: str) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    try:
        address, resolver.port = dns_server_of(server)
    except ValueError:
        raise LookupFailed(f"DNS server '{server}': expected an IP address") from None
    resolver.nameservers = [address]
    return resolver


async def _resolve(resolver: dns.asyncresolver.Resolver, host: str, version: int) -> _ServerAnswer:
    kind = "AAAA" if version == 6 else "A"
    try:
        answer = await resolver.resolve(host, kind, search=False, lifetime=_LIFETIME_S)
    except dns.resolver.NoAnswer:
        return _ServerAnswer(version, why=f"{host} has no addresses")
    except dns.resolver.NXDOMAIN:
        return _ServerAnswer(version, why=f"{host} does not exist")
    except dns.exception.Timeout:
        return _ServerAnswer(version, why="the DNS server does not answer", is_answer=False)
    except (dns.exception.DNSException, OSError) as error:
        return _ServerAnswer(version, why=str(error), is_answer=False)
    return _ServerAnswer(version, [record.address for record in answer])
