"""The addresses that a backend has now: those that its targets stand for, and those that leave."""

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from coalmine_router.backends.address import Address
from coalmine_router.backends.backend_access import BackendAccess
from coalmine_router.backends.targets import Endpoint, Lookup

_log = structlog.get_logger(__name__)

ADDRESSES_MAX: Final = 256


class AddressSet:
    """The addresses of one backend by name, from its targets and the lookups.

    An unwanted address leaves only once another takes its place, or once none can.
    """

    def __init__(self, access: BackendAccess, on_change: Callable[[], None]) -> None:
        self.wanted: dict[str, Address] = {}
        self.leaving: list[Address] = []
        self.failed: dict[Lookup, str] = {}
        self.left_out = 0
        self._access = access
        self._on_change = on_change
        self._found: dict[Lookup, list[str]] = {}
        self._refresh_wanted()

    # ------------------------------------------------------------ what is known

    @property
    def lookups(self) -> list[Lookup]:
        """The names that its targets have."""
        return [each for each in self._access.parsed_targets if isinstance(each, Lookup)]

    @property
    def known(self) -> tuple[Address, ...]:
        """All addresses, wanted and leaving."""
        return (*self.wanted.values(), *self.leaving)

    @property
    def available(self) -> tuple[Address, ...]:
        """The addresses whose own state lets them get calls."""
        return tuple(each for each in self.known if each.state.is_available)

    @property
    def is_settled(self) -> bool:
        """Whether each name and address is either reached or known to be out of reach."""
        return all(each in self._found or each in self.failed for each in self.lookups) and all(
            each.state.is_settled for each in self.wanted.values()
        )

    # ------------------------------------------------------------ what happens

    def use_access(self, access: BackendAccess) -> None:
        """Use other targets or files from now on."""
        # The files behind the open channels are no longer known. So with TLS, all channels are new.
        is_renewed = bool(access.backend.tls or self._access.backend.tls)
        self._access = access
        for of in (self._found, self.failed):
            for gone in [each for each in of if each not in self.lookups]:
                del of[gone]
        if is_renewed:
            self.reopen_all()
        else:
            self._refresh_wanted()

    def note_lookup(self, lookup: Lookup, found: list[str] | str) -> None:
        """Note the answer of a lookup. A failed lookup leaves the addresses as they are."""
        if lookup not in self.lookups:
            return
        if isinstance(found, str):
            if self.failed.get(lookup) != found:
                backend = self._access.backend.name
                _log.warning("lookup_failed", backend=backend, name=str(lookup), why=found)
            self.failed[lookup] = found
            return
        self.failed.pop(lookup, None)
        self._found[lookup] = found
        self._refresh_wanted()

    def reopen_all(self) -> None:
        """Open all channels anew: the credentials have changed."""
        self.leaving.extend(self.wanted.values())
        self.wanted.clear()
        self._refresh_wanted()

    def remove_leavers(self) -> list[Address]:
        """Remove the addresses that may leave now, and return them."""
        gone = [each for each in self.leaving if self._may_be_removed(each)]
        self.leaving = [each for each in self.leaving if each not in gone]
        return gone

    def remove_all(self) -> tuple[Address, ...]:
        """Remove all addresses, and return them."""
        gone = self.known
        self.wanted.clear()
        self.leaving.clear()
        return gone

    # ------------------------------------------------------------ how

    def _may_be_removed(self, address: Address) -> bool:
        if not address.state.is_available:
            return True
        instead = self.wanted.get(address.name)
        if instead is not None:
            return instead.state.is_available
        others = self.wanted.values()
        return any(each.state.is_available for each in others) or self.is_settled

    def _refresh_wanted(self) -> None:
        endpoints = self._limit_endpoints(self._endpoints())
        for name, address in list(self.wanted.items()):
            if endpoints.get(name) != address.endpoint:
                self.leaving.append(self.wanted.pop(name))
        for name, endpoint in endpoints.items():
            if name not in self.wanted:
                self.wanted[name] = self._open_address(endpoint)

    def _endpoints(self) -> Iterable[Endpoint]:
        for each in self._access.parsed_targets:
            if isinstance(each, Endpoint):
                yield each
            else:
                yield from (each.endpoint(ip) for ip in self._found.get(each, ()))

    def _limit_endpoints(self, endpoints: Iterable[Endpoint]) -> dict[str, Endpoint]:
        """Return the endpoints by name. An endpoint in several targets is one.

        Over the bound, the first by name stay. DNS answers in any order, and proxies and control
        must choose the same ones. Otherwise callers get answers of addresses that no verdict waits
        for.
        """
        by_name: dict[str, Endpoint] = {}
        for each in endpoints:
            by_name.setdefault(each.name, each)
        left_out = max(0, len(by_name) - ADDRESSES_MAX)
        if left_out > self.left_out:
            backend = self._access.backend.name
            _log.warning("addresses_left_out", backend=backend, count=left_out, max=ADDRESSES_MAX)
        self.left_out = left_out
        names = sorted(by_name)[:ADDRESSES_MAX] if left_out else by_name
        return {name: by_name[name] for name in names}

    def _open_address(self, endpoint: Endpoint) -> Address:
        backend = self._access.backend.name
        _log.info("address_found", backend=backend, address=endpoint.name)
        return Address(backend, endpoint, self._access.open(endpoint), self._on_change)
