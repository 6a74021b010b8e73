"""A gate that holds answers for a moment, so that no call arrives while a server stops."""

import asyncio
import contextlib


class AnswerGate:
    """Holds answers while it is closed.

    gRPC answers CANCELLED to a call that arrives once its server has begun to stop, and no caller
    goes elsewhere for that. A caller that waits for an answer sends nothing new. And gRPC's word to
    open another connection arrives before the answers that follow it. So `lifecycle.drain` closes
    the gate, stops the server, and opens the gate.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._over = asyncio.Event()

    def begin(self) -> None:
        """Hold answers from now on."""
        self.is_on = True

    def end(self) -> None:
        """Release them, for good."""
        self.is_on = False
        self._over.set()

    async def wait(self, remaining_s: float | None) -> None:
        """Return when the gate is open, or half of the caller's remaining time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if remaining_s is None else remaining_s / 2):
                await self._over.wait()
