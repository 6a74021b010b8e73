"""Whom a token is shown to, and what to do where it isn't enough."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from coalmine.access.target import Target, advice_on, is_local_target, with_metadata
from coalmine.access.tls_files import Tls
from coalmine.errors import StartError


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:8001", "127.1.2.3:1", "localhost:8001", "[::1]:8001", "localhost"),
        *("dns:///localhost:8001", "dns:localhost:8001", "ipv4:127.0.0.1:1", "ipv6:[::1]:1"),
        *("unix:/run/x.sock", "unix:///run/x.sock", "unix-abstract:x"),
        "ipv4:127.0.0.1:1,127.0.0.2:1",
    ],
)
def test_loopback_and_sockets_are_here(target: str) -> None:
    assert is_local_target(target)


@pytest.mark.parametrize(
    "target",
    [
        *("0.0.0.0:8001", "[::]:8001", "10.0.0.7:8001", "server:8001", "localhost.evil.org:1"),
        *("dns:///server:8001", "dns://127.0.0.1/server:8001", "ipv4:127.0.0.1:1,10.0.0.7:1", ""),
        *("xds:///service", "127.0.0.1.evil.org:1", "localhost:1@evil.org:2"),
    ],
)
def test_everything_else_is_elsewhere(target: str) -> None:
    assert not is_local_target(target)


def test_a_token_is_shown_as_bearer() -> None:
    assert Target("127.0.0.1:1", token="abc").token_metadata() == (("authorization", "Bearer abc"),)


def test_no_token_is_nothing_to_show() -> None:
    assert Target("10.0.0.7:1", token=None).token_metadata() == ()


def test_a_token_goes_to_another_machine_only_encrypted_or_where_asked() -> None:
    with pytest.raises(StartError, match=r"to 10\.0\.0\.7:1 unencrypted"):
        Target("10.0.0.7:1", token="abc").token_metadata()
    assert Target("10.0.0.7:1", token="abc", token_in_plaintext=True).token_metadata()
    assert Target("10.0.0.7:1", Tls(), "abc").token_metadata()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "é"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(StartError, match=r"^a token is one word of ASCII$"):
        Target("127.0.0.1:1", token=token).token_metadata()


# ---------------------------------------------------------------- files, channels, advice


def test_a_token_in_a_file_is_its_text_without_the_line_break(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert Target("127.0.0.1:1", token_file=file).token_metadata() == (
        ("authorization", "Bearer abc"),
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "no such file or directory"), (b"", "a token is one word"), (b"\xff", "not a text")],
)
def test_a_wrong_file_of_a_token_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError) as caught:
        Target("127.0.0.1:1", token_file=file).token_metadata()
    assert str(caught.value).startswith(f"{file}: {why}")


class FakeChannel:
    """A channel whose methods return what they were given."""

    def unary_unary(self, method: str, **more: Any) -> Any:
        return lambda request, **call: (method, more, request, call)


def test_every_call_of_a_showing_channel_has_its_metadata() -> None:
    channel: Any = FakeChannel()
    metadata = (("authorization", "Bearer abc"),)
    call: Any = with_metadata(channel, metadata).unary_unary("/s/M", request_serializer=None)
    assert call(1, timeout=2) == (
        "/s/M",
        {"request_serializer": None},
        1,
        {"metadata": metadata, "timeout": 2},
    )


def test_with_nothing_to_show_the_channel_is_itself() -> None:
    channel: Any = FakeChannel()
    assert with_metadata(channel, ()) is channel


@pytest.mark.parametrize(
    ("code", "details", "advice"),
    [
        ("UNAUTHENTICATED", "the token is not known here", "give a token that is known there"),
        ("PERMISSION_DENIED", "", "give a token of that role"),
        ("UNAVAILABLE", "failed to connect to all addresses: WRONG_VERSION_NUMBER", "TLS is not"),
        ("UNAVAILABLE", "failed to connect: CERTIFICATE_VERIFY_FAILED", "its certificate is of an"),
        ("UNAVAILABLE", "failed to connect: Hostname Verification", "its certificate is for anoth"),
        ("UNAVAILABLE", "failed to connect to all addresses: Socket closed", "it may ask for TLS"),
        ("UNAVAILABLE", "failed to connect to all addresses: Connection refused", ""),
        ("UNAVAILABLE", "Socket closed", ""),
        ("NOT_FOUND", "no CERTIFICATE_VERIFY_FAILED", ""),
    ],
)
def test_advice_is_for_those_who_were_turned_away(code: str, details: str, advice: str) -> None:
    nothing = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode[code], nothing, nothing, details)
    said = advice_on(error)
    assert said.startswith(advice)
    assert bool(said) is bool(advice)
