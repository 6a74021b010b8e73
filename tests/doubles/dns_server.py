"""A DNS server with answers of a test's own: real UDP, on loopback.

`with DnsServer() as dns:` (or `async with`) answers at `dns.address` from a thread of its own, so
that whoever asks may be a process of any kind.
"""

import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_DATAGRAM_BYTES_MAX = 4_096


class DnsServer:
    """Knows the names that `answer` told it of; all others do not exist.

    `silent` makes it take questions and answer none, `silent_of` those of an IP version; to one in
    `failing_of` it answers that it failed. `asked` holds the names in the order they
    were asked for, each twice: once for IPv4, once for IPv6.
    """

    def __init__(self) -> None:
        self.silent = False
        self.silent_of = 0
        self.failing_of = 0
        self.asked: list[str] = []
        self._names: dict[str, Sequence[str]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        host, port = self._socket.getsockname()
        self.address = f"{host}:{port}"
        self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)

    def answer(self, name: str, addresses: Sequence[str]) -> None:
        """Answer questions for `name` with these from now on; with none, there is no such name."""
        self._names[name] = tuple(addresses)

    def target(self, name: str, port: int) -> str:
        """Return the target by which gRPC's users ask this server for `name`."""
        return f"dns://{self.address}/{name}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # A datagram wakes the thread; closing the socket under it would not.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waking:
            waking.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(_DATAGRAM_BYTES_MAX)
            if not question:
                return
            query = dns.message.from_wire(question)
            answer = self._answered(query)
            if not self.silent and _version(query) != self.silent_of:
                self._socket.sendto(answer.to_wire(), asker)

    def _answered(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        known = self._names.get(name, ())
        if not known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        version = _version(query)
        if version == self.failing_of:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer
        found = [each for each in known if ip_address(each).version == version]
        if found:
            answer.answer.append(
                dns.rrset.from_text_list(question.name, 1, "IN", question.rdtype, found)
            )
        return answer


def _version(query: dns.message.Message) -> int:
    return 6 if query.question[0].rdtype == dns.rdatatype.AAAA else 4
