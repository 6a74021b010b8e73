"""The socket between the router's own processes, in folders of any name."""

import asyncio
from pathlib import Path

import grpc
import pytest

from coalmine.lifecycle import bind
from coalmine_router.app import _socket


@pytest.mark.parametrize("name", ["plain", "a b", "a#1", "a?b", "a%41b", "100%", "caf\xe9"])
async def test_a_state_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    state = tmp_path / name
    state.mkdir()
    server = grpc.aio.server()
    bind(server, _socket(state))
    await server.start()
    assert (state / "control.sock").exists()
    async with grpc.aio.insecure_channel(_socket(state)) as channel, asyncio.timeout(5):
        await channel.channel_ready()
    await server.stop(None)
