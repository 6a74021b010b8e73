"""The targets of a backend: addresses, and names to look up. Pure."""

import ipaddress
from dataclasses import dataclass
from typing import Final

from coalmine.process.addresses import split_address

_DNS_PORT: Final = 53


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address. gRPC connects to `target`. Reports use `name`.

    `authority` is the host to ask for, and to expect a certificate of; "": the address itself.
    """

    target: str
    name: str
    authority: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A name that stands for addresses. `server`: the DNS server to ask; "": the system's way."""

    host: str
    port: int
    server: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (f" (asked of {self.server})" if self.server else "")

    def endpoint(self, ip: str) -> Endpoint:
        """Return the endpoint at one of the name's addresses."""
        found = _ip_endpoint(ip, self.port)
        return Endpoint(found.target, found.name, _host_port(self.host, self.port))


def parse_target(target: str) -> list[Endpoint | Lookup]:
    """Return the endpoints and names in a gRPC target. Raises StartError without a host:port."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return [Endpoint(target, target)]
    if colon and scheme in {"ipv4", "ipv6"}:
        return [_ip_endpoint(*split_address(each)) for each in rest.lstrip("/").split(",")]
    if colon and scheme == "dns":
        server, _, address = rest.removeprefix("//").rpartition("/")
        return [_parse_address(address, server if rest.startswith("//") else "")]
    return [_parse_address(target, "")]


def dns_server_of(authority: str) -> tuple[str, int]:
    """Return address and port of a DNS server. Raises ValueError where that is no IP address."""
    try:
        return str(ipaddress.ip_address(authority.strip("[]"))), _DNS_PORT
    except ValueError:
        host, _, port = authority.rpartition(":")
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)


def _parse_address(address: str, server: str) -> Endpoint | Lookup:
    host, port = split_address(address)
    return _ip_endpoint(host, port) if _ip_version(host) else Lookup(host, port, server)


def _ip_endpoint(ip: str, port: int) -> Endpoint:
    name = _host_port(ip, port)
    return Endpoint(f"{'ipv6' if ':' in ip else 'ipv4'}:{name}", name)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ip_version(host: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0
