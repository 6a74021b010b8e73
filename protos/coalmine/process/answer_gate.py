"""Answers kept back for a moment, so that nobody asks while a server stops."""

import asyncio
import contextlib


class AnswerGate:
    """Keeps answers back while it is on.

    A call that reaches gRPC once its server has begun to stop is answered CANCELLED, which no
    caller takes for a reason to go elsewhere. Whoever waits for an answer sends nothing new; and
    what tells a caller to open another connection arrives before the answers that follow it. So
    `lifecycle.drain` holds answers, stops the server, and lets them go.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._over = asyncio.Event()

    def begin(self) -> None:
        """Keep answers back from now on."""
        self.is_on = True

    def end(self) -> None:
        """Let them go, for good."""
        self.is_on = False
        self._over.set()

    async def wait(self, remaining_s: float | None) -> None:
        """Return when the hold is over, or half of the caller's remaining time has gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if remaining_s is None else remaining_s / 2):
                await self._over.wait()
