"""Keeps the exchanges of the traffic. Callers can wait for enough of one revision."""

import asyncio
from collections import Counter
from typing import Final

from coalmine_demo.account import TrafficExchange
from coalmine_demo.demo_failure import StepFailed

EXCHANGES_MAX: Final = 100_000
PATIENCE_S: Final = 90.0


class Ledger:
    """Every exchange, in the order of the answers."""

    def __init__(
        self, *, exchanges_max: int = EXCHANGES_MAX, patience_s: float = PATIENCE_S
    ) -> None:
        self.exchanges: list[TrafficExchange] = []
        self._exchanges_max = exchanges_max
        self._patience_s = patience_s
        self._by_revision: Counter[int] = Counter()
        self._more = asyncio.Event()

    def record(self, exchange: TrafficExchange) -> None:
        """Keep one more. Raises OverflowError if there is no room."""
        if len(self.exchanges) >= self._exchanges_max:
            raise OverflowError(f"more than {self._exchanges_max:,} exchanges")
        self.exchanges.append(exchange)
        self._by_revision[exchange.revision] += 1
        self._more.set()

    async def wait_for(self, revision: int, count: int) -> None:
        """Return once that revision of the route table has answered `count` requests.

        Raises StepFailed if that takes too long.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                while self._by_revision[revision] < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise StepFailed(self._shortfall(revision, count)) from None

    def _shortfall(self, revision: int, count: int) -> str:
        seen = ", ".join(f"{key}: {value}" for key, value in self._by_revision.items() if value)
        return (
            f"revision {revision} did not answer {count} requests within {self._patience_s:g} s; "
            f"answers by revision: {seen or 'none'}"
        )
