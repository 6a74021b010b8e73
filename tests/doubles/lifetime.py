"""What doubles that run have in common: they start, and they stop."""

from typing import Self


class Lifetime:
    """`async with` starts it, and stops it at the end of the block."""

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()
