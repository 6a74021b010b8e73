"""A TCP relay between a caller and a server, that can be cut: as a network does it, at any byte."""

import asyncio
import contextlib

from tests.doubles.lifetime import Lifetime


class Relay(Lifetime):
    """`async with Relay(target) as relay:` passes on what comes to `relay.address`.

    `target` is host:port. With `cut_after` set, each connection is cut after so many bytes of the
    caller's have been passed on.
    """

    def __init__(self, target: str, *, cut_after: int | None = None) -> None:
        self._target = target
        self.cut_after = cut_after
        self.cuts = 0
        self.address = ""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Cut all connections; new ones are taken."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        with contextlib.suppress(OSError):
            there, onward = await asyncio.open_connection(host, int(port))
            self._open |= {writer, onward}
            try:
                async with asyncio.TaskGroup() as tasks:
                    back = tasks.create_task(_pass_on(there, writer, None))
                    if await _pass_on(reader, onward, self.cut_after):
                        self.cuts += 1
                    back.cancel()
            finally:
                self._open -= {writer, onward}
                onward.transport.abort()
        writer.transport.abort()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, at_most: int | None
) -> bool:
    """Pass bytes on until either side ends; return whether it was because of `at_most`."""
    passed = 0
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            if at_most is not None and passed + len(data) > at_most:
                writer.write(data[: at_most - passed])
                await writer.drain()
                return True
            writer.write(data)
            passed += len(data)
            await writer.drain()
    return False
