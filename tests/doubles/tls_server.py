"""A server behind TLS, in this process."""

import asyncio
from pathlib import Path
from typing import Any, Self

import grpc

from tests.doubles.certificates import Pair


class TlsServer(grpc.GenericRpcHandler):
    """`async with TlsServer(pair):` answers at `address`; `peers` and `metadata` are of calls.

    It echoes what is sent, but not before `held` is set.
    """

    def __init__(self, pair: Pair, client_ca: Path | None = None, host: str = "127.0.0.1") -> None:
        self.peers: set[str] = set()
        self.metadata: list[dict[str, str | bytes]] = []
        self.held = asyncio.Event()
        self.held.set()
        self._server = grpc.aio.server()
        credentials = grpc.ssl_server_credentials(
            [(pair.key.read_bytes(), pair.cert.read_bytes())],
            root_certificates=client_ca.read_bytes() if client_ca else None,
            require_client_auth=client_ca is not None,
        )
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_secure_port(f"{host}:0", credentials)
        self.address = f"{host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    def service(self, details: Any) -> Any:
        if details.method.startswith("/grpc.health."):
            return None
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, body: bytes, context: Any) -> bytes:
        self.peers.add(context.peer())
        self.metadata.append(dict(context.invocation_metadata()))
        await self.held.wait()
        return body
