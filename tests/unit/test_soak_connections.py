"""Which connections the soak takes for broken, by the files of real processes."""

import os
import socket
from collections.abc import Iterator

import grpc
import pytest

from tests.soak.connections import Traced, broken


@pytest.fixture
def connected() -> Iterator[tuple[int, int]]:
    """Yield the port of a listener, and that of a client whose connection it accepted."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0],
    ):
        yield listener.getsockname()[1], client.getsockname()[1]


def test_a_connection_that_a_living_process_has_is_not_broken(connected: tuple[int, int]) -> None:
    port, _ = connected
    assert broken(port, [os.getpid()]) == set()


def test_a_connection_that_none_of_the_living_has_is_broken(connected: tuple[int, int]) -> None:
    port, client = connected
    assert broken(port, []) == {client}


def test_a_connection_that_was_not_accepted_is_broken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        assert broken(listener.getsockname()[1], [os.getpid()]) == {client.getsockname()[1]}


async def test_a_channel_knows_the_port_that_it_is_connected_from() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = (("grpc.use_local_subchannel_pool", 1),)
    lines = [Traced(f"127.0.0.1:{port}", options) for _ in range(2)]
    try:
        for each in lines:
            await each.channel.channel_ready()
        known = [each.ports() for each in lines]
        assert all(len(each) == 1 for each in known)
        assert {client for [client] in known} == broken(port, [])
    finally:
        for each in lines:
            await each.channel.close()
        await server.stop(None)
