"""Channels of the control process, to real servers: they keep to what the files say."""

import asyncio
import gc
import weakref
from pathlib import Path

import grpc
import pytest

from coalmine.errors import StartError
from coalmine_router.channels import Channels
from coalmine_router.table import Backend, BackendTls
from tests.doubles.certificates import Authority
from tests.doubles.hand_clock import HandClock
from tests.doubles.tls_server import TlsServer

SECOND_NS = 10**9
NOBODY = "127.0.0.1:1"


async def echoed(channel: grpc.aio.Channel) -> bytes:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a.B/C")
    return await method(b"body", timeout=10.0)


def by_token(file: Path) -> Backend:
    return Backend("blue", (NOBODY,), token_file=str(file))


async def test_new_certificates_are_used_a_second_later_and_calls_under_way_go_on(
    tmp_path: Path,
) -> None:
    authority, clock = Authority(tmp_path), HandClock()
    client, channels = authority.client(), Channels(clock)
    tls = BackendTls(str(authority.ca), str(client.cert), str(client.key))
    async with (
        TlsServer(authority.server(), client_ca=authority.ca) as server,
        asyncio.TaskGroup() as tasks,
    ):
        blue = Backend("blue", (server.address,), tls)
        old = channels.channel(blue, server.address)
        await echoed(old)
        server.held.clear()
        under_way = tasks.create_task(echoed(old))

        authority.client()
        clock.now_ns = SECOND_NS - 1
        assert channels.channel(blue, server.address) is old
        clock.now_ns = SECOND_NS
        new = channels.channel(blue, server.address)
        assert new is not old
        del old
        server.held.set()
        assert await echoed(new) == b"body"
        assert await under_way == b"body"
    assert len(server.peers) == 2
    await channels.close()


async def test_the_channel_before_goes_once_its_last_call_has_ended(tmp_path: Path) -> None:
    authority, clock = Authority(tmp_path), HandClock()
    channels = Channels(clock)
    async with TlsServer(authority.server()) as server:
        blue = Backend("blue", (server.address,), BackendTls(str(authority.ca)))
        await echoed(channels.channel(blue, server.address))
        old = weakref.ref(channels.channel(blue, server.address))
        assert old() is not None

        authority.ca.write_bytes(authority.ca.read_bytes() + b"\n")
        clock.now_ns = SECOND_NS
        await echoed(channels.channel(blue, server.address))
        gc.collect()
        assert old() is None
    await channels.close()


async def test_a_new_token_is_shown_a_second_later_on_the_same_channel(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", HandClock()
    file.write_text("first\n")
    channels, blue = Channels(clock), by_token(file)
    channel = channels.channel(blue, NOBODY)
    assert channels.shown(blue) == (("authorization", "Bearer first"),)

    file.write_text("second\n")
    clock.now_ns = SECOND_NS - 1
    assert channels.shown(blue) == (("authorization", "Bearer first"),)
    clock.now_ns = SECOND_NS
    assert channels.shown(blue) == (("authorization", "Bearer second"),)
    assert channels.channel(blue, NOBODY) is channel
    await channels.close()


async def test_a_file_that_goes_wrong_leaves_what_was_read(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", HandClock()
    file.write_text("first\n")
    channels, blue = Channels(clock), by_token(file)
    channels.shown(blue)
    file.unlink()
    clock.now_ns = SECOND_NS
    assert channels.shown(blue) == (("authorization", "Bearer first"),)


async def test_files_that_are_wrong_from_the_start_are_tried_again_each_second(
    tmp_path: Path,
) -> None:
    file, clock = tmp_path / "token", HandClock()
    channels, blue = Channels(clock), by_token(file)
    with pytest.raises(StartError, match="no such file"):
        channels.shown(blue)
    file.write_text("first\n")
    with pytest.raises(StartError, match="no such file"):
        channels.channel(blue, NOBODY)
    clock.now_ns = SECOND_NS
    assert channels.shown(blue) == (("authorization", "Bearer first"),)


async def test_of_many_backends_the_one_that_was_called_longest_ago_is_let_go() -> None:
    channels = Channels(HandClock())
    backends = [Backend(f"b{number}", (NOBODY,)) for number in range(513)]
    opened = [channels.channel(each, NOBODY) for each in backends[:512]]
    assert channels.channel(backends[0], NOBODY) is opened[0]
    channels.channel(backends[512], NOBODY)
    assert channels.channel(backends[0], NOBODY) is opened[0]
    assert channels.channel(backends[1], NOBODY) is not opened[1]
    await channels.close()
