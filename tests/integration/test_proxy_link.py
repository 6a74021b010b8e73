"""A proxy's way to a control process that asks for TLS and tokens."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coalmine.access.target import Target
from coalmine.access.tls_files import Tls
from coalmine.clock import SystemClock
from coalmine.control.v1 import control_pb2 as pb
from coalmine.control.v1.control_pb2_grpc import RouteControlStub, TableFeedStub
from coalmine.errors import StartError
from coalmine_router.config.file import RouterConfig, TlsConfig
from coalmine_router.proxy.link import ControlLink
from coalmine_router.proxy.subscriber import Subscriber
from tests.doubles.callers import TOKENS, outcome, write_tokens
from tests.doubles.certificates import Authority
from tests.doubles.control_rig import ControlRig, router_config
from tests.doubles.waiting import eventually


class NoReach:
    """A proxy's reach of nothing, which stays so."""

    def reach(self) -> Sequence[pb.VariantReach]:
        return ()

    async def wait_for_reach_change(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.yaml", "viewer", "proxy")


def guarded(folder: Path, authority: Authority, tokens: Path | None = None) -> RouterConfig:
    pair = authority.server()
    asked = {"tls": TlsConfig(cert=pair.cert, key=pair.key), "tokens": tokens}
    plain = router_config(folder / "state", "127.0.0.1:1")
    return plain.model_copy(update={"control": plain.control.model_copy(update=asked)})


@contextlib.asynccontextmanager
async def linked(address: Target) -> AsyncIterator[ControlLink]:
    link = ControlLink(address)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(link.follow_files())
        try:
            yield link
        finally:
            following.cancel()
            await link.close()


@contextlib.asynccontextmanager
async def following(link: ControlLink, folder: Path) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber("p1", folder / "table.pb", lambda _: None, NoReach(), SystemClock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            subscriber.run(lambda states: TableFeedStub(link.channel()).Follow(states))
        )
        try:
            yield subscriber
        finally:
            task.cancel()


async def said(logged: Sequence[Mapping[str, Any]], code: str) -> None:
    """Return once a loss of control is logged with that code."""
    await eventually(lambda: code in [each.get("code") for each in logged])


async def listing(link: ControlLink) -> str:
    return await outcome(RouteControlStub(link.channel()).ListRoutes(pb.ListRoutesRequest()))


async def test_it_shows_its_token_over_tls(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    async with ControlRig(guarded(tmp_path, authority, tokens)) as rig:
        tls = Tls(authority.ca)
        async with linked(Target(rig.address, tls, TOKENS["proxy"])) as link:
            await link.wait_until_connected()
            async with following(link, tmp_path) as subscriber, asyncio.timeout(10):
                await subscriber.serving.wait()
            assert await listing(link) == "OK"
        async with linked(Target(rig.address, tls)) as nobodys:
            assert await listing(nobodys) == "UNAUTHENTICATED"


async def test_a_file_of_the_token_is_read_again_when_it_changes(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("not-known\n")
    async with ControlRig(guarded(tmp_path, authority, tokens)) as rig:
        address = Target(rig.address, Tls(authority.ca), "overruled", token_file=file)
        async with linked(address) as link:
            assert await listing(link) == "UNAUTHENTICATED"
            file.write_text(TOKENS["proxy"] + "\n")
            async with asyncio.timeout(10):
                while await listing(link) != "OK":
                    pass


async def test_a_proxy_that_is_turned_away_says_why_once_and_follows_once_it_may(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKENS["viewer"])
    async with ControlRig(guarded(tmp_path, authority, tokens)) as rig:
        address = Target(rig.address, Tls(authority.ca), token_file=file)
        with capture_logs() as logged:
            async with linked(address) as link, following(link, tmp_path) as subscriber:
                await said(logged, "PERMISSION_DENIED")
                assert not subscriber.serving.is_set()
                # Seen after a second at the most, and five tries.
                file.write_text("not-known")
                await said(logged, "UNAUTHENTICATED")
                file.write_text(TOKENS["proxy"])
                async with asyncio.timeout(10):
                    await subscriber.serving.wait()
    lost = [each for each in logged if each["event"] == "control_lost"]
    assert [(each["code"], each["why"]) for each in lost] == [
        ("PERMISSION_DENIED", "Follow needs role proxy, 'viewer-1' is viewer"),
        ("UNAUTHENTICATED", "the token is not known here"),
    ]
    assert all(each["advice"].startswith("give a token") for each in lost)


async def test_a_new_authority_is_trusted_once_its_file_is_another(
    tmp_path: Path, authority: Authority
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path / "other", "another").ca.read_bytes())
    async with (
        ControlRig(guarded(tmp_path, authority)) as rig,
        linked(Target(rig.address, Tls(trusted))) as link,
    ):
        assert await listing(link) == "UNAVAILABLE"
        trusted.write_bytes(authority.ca.read_bytes())
        async with asyncio.timeout(10):
            await link.wait_until_connected()
        assert await listing(link) == "OK"


async def test_a_stream_that_is_open_goes_on_when_the_files_are_others(
    tmp_path: Path, authority: Authority
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.ca.read_bytes())
    wanted = pb.WatchRouteRequest(route="digits", interval_ms=100)
    async with (
        ControlRig(guarded(tmp_path, authority)) as rig,
        linked(Target(rig.address, Tls(trusted))) as link,
    ):
        before = link.channel()
        watched: Any = RouteControlStub(before).WatchRoute(wanted)
        assert await watched.read()
        trusted.write_bytes(authority.ca.read_bytes() + b"\n")
        async with asyncio.timeout(10):
            while link.channel() is before:  # a lambda would hold it
                await asyncio.sleep(0.05)
        del before
        gc.collect()
        for _ in range(5):
            assert isinstance(await watched.read(), pb.RouteStatus)
        assert await listing(link) == "OK"
        watched.cancel()


async def test_at_a_socket_neither_tls_nor_a_token_is_used(
    tmp_path: Path, authority: Authority, tokens: Path
) -> None:
    socket = f"unix:{tmp_path}/c.sock"
    async with ControlRig(guarded(tmp_path, authority, tokens), socket=socket):
        # As a child of `router run` finds them in its environment.
        address = Target(socket, Tls(tmp_path / "absent.pem"), "an operator's")
        async with linked(address) as link, following(link, tmp_path) as subscriber:
            async with asyncio.timeout(10):
                await subscriber.serving.wait()
            assert await listing(link) == "UNIMPLEMENTED", "only what proxies need is offered there"


async def test_a_token_does_not_travel_unencrypted(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="unencrypted"):
        ControlLink(Target("10.0.0.7:9002", token="abc"))
    file = tmp_path / "token"
    file.write_text("abc")
    with pytest.raises(StartError, match=r"token: a token would go to 10\.0\.0\.7:9002 unencr"):
        ControlLink(Target("10.0.0.7:9002", token_file=file))
    link = ControlLink(Target("10.0.0.7:9002", token="abc", token_in_plaintext=True))
    await link.close()


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "no such file"), (b"two words", "one word of ASCII"), (b"\xff\xfe", "not a text file")],
)
async def test_a_wrong_file_of_the_token_is_one_line(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError, match=why) as caught:
        ControlLink(Target("127.0.0.1:1", token_file=file))
    assert str(caught.value).startswith(f"{file}: ")
