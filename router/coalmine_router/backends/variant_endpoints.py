"""A variant's endpoints: which address gets the next call, and which are ejected for a while."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import structlog

from coalmine.clock import Clock
from coalmine_router.backends.address import Address
from coalmine_router.backends.balance import Chance, less_loaded
from coalmine_router.backends.ejection import EjectionRules, Ejections, excluded_names
from coalmine_router.backends.endpoint_pool import EndpointPool
from coalmine_router.metadata import Pair
from coalmine_router.unreachable import cut_in_the_middle

_log = structlog.get_logger(__name__)

_TROUBLES_MAX: Final = 3
_TROUBLE_CHARS_MAX: Final = 300


class VariantEndpoints:
    """Chooses among the addresses of a variant's backend.

    Other variants still call an address that is ejected here: one failing model must not take away
    its neighbours' backend. Calls `on_ejection` after each ejection.
    """

    __slots__ = (
        "_available",
        "_chance",
        "_clock",
        "_ejections",
        "_has_stand_in",
        "_marks",
        "_on_ejection",
        "_only",
        "_pool",
        "backend",
        "is_ready",
        "lost_ns",
        "model",
        "ready",
        "ready_names",
        "token_metadata",
        "where",
    )

    def __init__(
        self,
        where: str,
        pool: EndpointPool,
        *,
        clock: Clock,
        chance: Chance,
        rules: EjectionRules,
        on_ejection: Callable[[], None],
        has_stand_in: bool,
        model: str = "",
    ) -> None:
        self.where = where
        self.backend = pool.name
        self.model = model
        self.token_metadata: tuple[Pair, ...] = ()
        # The addresses that report that they serve the model, ejected ones too.
        self.ready: tuple[Address, ...] = ()
        self.ready_names: tuple[str, ...] = ()
        self.is_ready = False
        # Since when the variant isn't ready; while it is ready, the last such time.
        self.lost_ns = clock.monotonic_ns()
        self._pool = pool
        self._clock = clock
        self._chance = chance
        self._on_ejection = on_ejection
        self._has_stand_in = has_stand_in
        self._ejections = Ejections(chance, rules)
        self._marks = self._ejections.marks
        self._available: tuple[Address, ...] = ()
        self._only: Address | None = None
        pool.users.append(self)
        self.refresh_choices()

    # ------------------------------------------------------------ the hot path

    def pick(self) -> Address | None:
        """Return the address for the next call; None: the variant is not ready."""
        only = self._only
        if only is not None:
            return only
        available = self._available
        return less_loaded(available, self._chance) if available else None

    def pick_any(self) -> Address | None:
        """Return the least bad address, for a call without an alternative; None: none is known."""
        found = self.pick()
        if found is not None:
            return found
        known = self._pool.known
        return min(known, key=lambda each: (each.state.badness, each.outstanding), default=None)

    def pick_other(self, than: Address) -> Address | None:
        """Return an available address that isn't `than`, for a second attempt."""
        others = [each for each in self._available if each is not than]
        return less_loaded(others, self._chance) if others else None

    def note_failure(self, address: Address) -> None:
        """Count a call that ended UNAVAILABLE or DEADLINE_EXCEEDED."""
        address.request_probe()
        of = len(self._pool.available) if address.state.is_available else 0
        out_ns = self._ejections.note_failure(
            address.name, self._clock.monotonic_ns(), most=self._out_max(of)
        )
        if out_ns:
            out_s = round(out_ns / 1e9, 1)
            _log.warning("address_ejected", lane=self.where, address=address.name, out_s=out_s)
            self.refresh_choices()
            self._on_ejection()

    def note_answer(self, address: Address) -> None:
        """Count a call that ended any other way."""
        if self._marks:
            self._ejections.note_answer(address.name, self._clock.monotonic_ns())

    # ------------------------------------------------------------ beside it

    @property
    def next_return_ns(self) -> int | None:
        """The time when the next ejected address returns; None: none is ejected."""
        return self._ejections.next_return_ns

    def readmit(self) -> None:
        """Readmit the addresses whose ejection is over."""
        for name in self._ejections.readmit_due(self._clock.monotonic_ns()):
            _log.info("address_returned", lane=self.where, address=name)
            self.refresh_choices()

    def retire(self) -> None:
        """Leave the pool: the table no longer has the variant."""
        self._pool.users.remove(self)

    def refresh_choices(self) -> None:
        """Choose among the pool's addresses of now."""
        self.token_metadata = self._pool.token_metadata
        available = tuple(each for each in self._pool.available if not self._refuses_model(each))
        self.ready = available
        self.ready_names = tuple(dict.fromkeys(each.name for each in available))
        if self._marks:
            self._ejections.forget_all_but({each.name for each in self._pool.known})
            names = [each.name for each in available]
            out = excluded_names(self._ejections.out_names, names, most=self._out_max(len(names)))
            available = tuple(each for each in available if each.name not in out)
        self._available = available
        self._only = available[0] if len(available) == 1 else None
        if self.is_ready and not available:
            self.lost_ns = self._clock.monotonic_ns()
        self.is_ready = bool(available)

    def set_model(self, model: str) -> None:
        """Call another model from now on."""
        if model != self.model:
            self.model = model
            self.refresh_choices()

    def _refuses_model(self, address: Address) -> bool:
        return self.model in address.unserved

    def _out_max(self, of: int) -> int:
        """Return how many of `of` addresses may be ejected: all, where there is a stand-in."""
        return of if self._has_stand_in else of // 2

    # ------------------------------------------------------------ what is said of it

    @property
    def address_counts(self) -> tuple[int, int]:
        """The number of known addresses, and of those that may get calls."""
        return len({each.name for each in self._pool.known}), len(self._available)

    @property
    def is_settled(self) -> bool:
        """Whether the router knows of each of its addresses if it can be called."""
        return self._pool.is_settled

    @property
    def has_names(self) -> bool:
        """Whether lookups may bring other addresses."""
        return self._pool.has_names

    def look_up_soon(self) -> None:
        """Look up its names soon: the known addresses can't be called."""
        self._pool.look_up_soon()

    @property
    def troubles(self) -> list[str]:
        """Why addresses get no calls: the first few "ADDRESS: REASON", each cut short."""
        return short_troubles(self.troubles_except(self._available))

    def troubles_except(self, well: Collection[Address]) -> list[str]:
        """Return the reasons why addresses get no calls. Those that are `well` have none."""
        out = [each for each in self._pool.wanted if each not in well]
        return [*self._pool.troubles, *(f"{each.name}: {self._trouble_of(each)}" for each in out)]

    @property
    def trouble(self) -> str:
        """The reason why it isn't ready, in one line."""
        reasons = "; ".join(self.troubles) or "no address is known yet"
        return f"backend '{self.backend}': {reasons}"

    def _trouble_of(self, address: Address) -> str:
        if address.state.trouble:
            return address.state.trouble
        if self._refuses_model(address):
            return f"says NOT_SERVING of model '{self.model}'"
        return "is out for a while: calls to it kept failing"


def short_troubles(lines: Sequence[str]) -> list[str]:
    """Return the first of many troubles, each cut short, and the number of the others."""
    few = [cut_in_the_middle(line, _TROUBLE_CHARS_MAX) for line in lines[:_TROUBLES_MAX]]
    more = len(lines) - _TROUBLES_MAX
    return [*few, f"and {more} more"] if more > 0 else few
