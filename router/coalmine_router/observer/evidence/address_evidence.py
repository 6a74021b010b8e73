"""What was found at each address of a variant, beside what was found at its others. Pure.

Each answer of an address is set against the mean of what the other addresses gave since its last
one: d in [-1, 1], 1 where it alone is wrong. Where all addresses answer alike, the mean of d is 0
whatever the model's own rate, also while that changes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from coalmine_router.observer.evidence.differences import Differences
from coalmine_router.observer.evidence.pair import Pair

# As many as the router knows of a backend.
ADDRESSES_MAX: Final = 256
_NAME_CHARS_MAX: Final = 256
# By so much larger is the wrong share of an address in doubt than that of the others.
_IN_DOUBT: Final = 0.5


# Returns the addresses of a route's variant that may be called now.
AsksReady = Callable[[str, str], Sequence[str]]


def none_known(_route: str, _variant: str) -> Sequence[str]:
    """Return the ready addresses of a variant where nobody knows them."""
    return ()


class ReadyAddresses(NamedTuple):
    """The addresses of both sides that may be called now; () where the router knows none."""

    reference: Sequence[str] = ()
    candidate: Sequence[str] = ()

    @classmethod
    def of(cls, pair: Pair, asks: AsksReady) -> Self:
        """Return the ready addresses of a pair."""
        return cls(asks(pair.route, pair.reference), asks(pair.route, pair.candidate))


@dataclass(slots=True)
class AddressEvidence(Differences):
    """What was found at one address: its d beside the others, and counts.

    `wrong` is the sum of shares in [0, 1]: of a request's rows that mismatch, or 1 of a failure.
    `rest_…` are sums over the variant's other addresses, when this one was last compared.
    """

    compared: int = 0
    mismatch: int = 0
    failed: int = 0
    wrong: float = 0.0
    max_seen_ns: int = 0
    rest_compared: int = 0
    rest_wrong: float = 0.0


@dataclass(slots=True)
class VariantAddresses:
    """The addresses of one variant in one trial: at most 256, the longest unseen is let go.

    Times are of the trial's traffic: they never run back, whatever the clock does.
    """

    by_name: dict[str, AddressEvidence] = field(default_factory=dict)
    compared: int = 0
    wrong: float = 0.0
    max_seen_ns: int = 0
    let_go: int = 0

    @property
    def known(self) -> int:
        """How many there were, also those that were let go."""
        return len(self.by_name) + self.let_go

    def add(self, address: str, share: float, *, at_ns: int, has_failed: bool = False) -> None:
        """Count an answer of which `share` is wrong; an address that isn't known counts nowhere."""
        if not address:
            return
        own = self._get_or_add(address[:_NAME_CHARS_MAX])
        self._compare_with_rest(own, share)
        own.compared += 1
        own.failed += has_failed
        own.mismatch += bool(share) and not has_failed
        own.wrong += share
        self.compared += 1
        self.wrong += share
        own.max_seen_ns = self.max_seen_ns = max(self.max_seen_ns, at_ns)

    def unseen(self, addresses: Iterable[str], within_ns: int) -> list[str]:
        """Return those that were not compared within so much of the trial's traffic."""
        known, since_ns = self.by_name, self.max_seen_ns - within_ns
        return [
            name
            for name in addresses
            if (own := known.get(name)) is None or own.max_seen_ns < since_ns
        ]

    def in_doubt(self, addresses: Iterable[str]) -> list[str]:
        """Return those that were wrong far more often than the others, be it in one request.

        Beside the others: a model that always differs has no address that is in doubt.
        """
        known = self.by_name
        return [
            name
            for name in addresses
            if (own := known.get(name)) is not None and self._share_above_others(own) >= _IN_DOUBT
        ]

    def _share_above_others(self, own: AddressEvidence) -> float:
        others = self.compared - own.compared
        if not own.compared or not others:
            return 0.0
        return own.wrong / own.compared - (self.wrong - own.wrong) / others

    def _get_or_add(self, address: str) -> AddressEvidence:
        own = self.by_name.get(address)
        if own is None:
            if len(self.by_name) >= ADDRESSES_MAX:
                del self.by_name[min(self.by_name, key=self._seen_ns)]
                self.let_go += 1
            own = AddressEvidence(rest_compared=self.compared, rest_wrong=self.wrong)
            self.by_name[address] = own
        return own

    def _seen_ns(self, address: str) -> int:
        return self.by_name[address].max_seen_ns

    def _compare_with_rest(self, own: AddressEvidence, share: float) -> None:
        compared, wrong = self.compared - own.compared, self.wrong - own.wrong
        since = compared - own.rest_compared
        if since > 0:
            own.add(share - (wrong - own.rest_wrong) / since)
            own.rest_compared, own.rest_wrong = compared, wrong
