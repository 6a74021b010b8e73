"""The socket between the router's own processes, in folders of any name."""

import asyncio
import shutil
from pathlib import Path

import grpc
import pytest

from coalmine.clock import SystemClock
from coalmine.errors import StartError
from coalmine.listener.reflection import ReflectedMethods
from coalmine.process.lifecycle import bind
from coalmine_router.app import _socket_folder, _socket_target
from coalmine_router.config.file import ControlConfig
from coalmine_router.control.listener import ControlListener


@pytest.mark.parametrize("name", ["plain", "a b", "a#1", "a?b", "a%41b", "100%", "caf\xe9"])
async def test_a_state_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    state = tmp_path / name
    state.mkdir()
    server = grpc.aio.server()
    bind(server, _socket_target(state))
    await server.start()
    assert (state / "control.sock").exists()
    async with grpc.aio.insecure_channel(_socket_target(state)) as channel, asyncio.timeout(5):
        await channel.channel_ready()
    await server.stop(None)


def test_where_the_state_folder_takes_no_socket_it_is_made_elsewhere(tmp_path: Path) -> None:
    no_folder = Path("/proc/self/fdinfo")
    with _socket_folder(no_folder) as folder:
        assert folder not in {no_folder, tmp_path}
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_trial_of_the_state_folder_leaves_nothing(tmp_path: Path) -> None:
    with _socket_folder(tmp_path) as folder:
        assert list(folder.iterdir()) == []
    assert folder == tmp_path
    with _socket_folder(tmp_path / "state") as folder:
        assert not folder.exists()


async def test_a_socket_that_can_wait_is_made_once_that_is_possible(tmp_path: Path) -> None:
    (tmp_path / "control.sock").mkdir()
    config = ControlConfig(listen="127.0.0.1:0", state=tmp_path)
    with pytest.raises(StartError, match=r"control\.sock"):
        await ControlListener(config, _socket_target(tmp_path), SystemClock()).open(
            nothing, nothing
        )
    listener = ControlListener(config, _socket_target(tmp_path), SystemClock())
    address = await listener.open(nothing, nothing, needs_socket=False)
    following = asyncio.create_task(listener.follow_socket())
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(5):
        await channel.channel_ready()
    (tmp_path / "control.sock").rmdir()
    async with grpc.aio.insecure_channel(_socket_target(tmp_path)) as channel, asyncio.timeout(20):
        await channel.channel_ready()
    assert (tmp_path / "control.sock").stat().st_mode & 0o077 == 0
    following.cancel()
    await listener.close(1)


async def test_a_socket_whose_folder_was_removed_is_made_again_for_who_comes_later(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state folder"
    state.mkdir()
    listener = ControlListener(
        ControlConfig(listen="127.0.0.1:0", state=state), _socket_target(state), SystemClock()
    )
    await listener.open(nothing, nothing)
    following = asyncio.create_task(listener.follow_socket())
    shutil.rmtree(state)
    state.mkdir()
    async with grpc.aio.insecure_channel(_socket_target(state)) as channel, asyncio.timeout(20):
        await channel.channel_ready()
    following.cancel()
    await listener.close(1)


def nothing(_methods: ReflectedMethods) -> None:
    """Offer nothing."""
