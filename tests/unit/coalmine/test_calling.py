"""Whom a token is shown to."""

import pytest

from coalmine.calling import is_here, shown
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
    assert is_here(target)


@pytest.mark.parametrize(
    "target",
    [
        *("0.0.0.0:8001", "[::]:8001", "10.0.0.7:8001", "server:8001", "localhost.evil.org:1"),
        *("dns:///server:8001", "dns://127.0.0.1/server:8001", "ipv4:127.0.0.1:1,10.0.0.7:1", ""),
        *("xds:///service", "127.0.0.1.evil.org:1", "localhost:1@evil.org:2"),
    ],
)
def test_everything_else_is_elsewhere(target: str) -> None:
    assert not is_here(target)


def test_a_token_is_shown_as_bearer() -> None:
    assert shown("abc", "127.0.0.1:1", anywhere=False) == (("authorization", "Bearer abc"),)


def test_no_token_is_nothing_to_show() -> None:
    assert shown(None, "10.0.0.7:1", anywhere=False) == ()


def test_a_token_goes_to_another_machine_only_encrypted_or_where_asked() -> None:
    with pytest.raises(StartError, match=r"to 10\.0\.0\.7:1 unencrypted"):
        shown("abc", "10.0.0.7:1", anywhere=False)
    assert shown("abc", "10.0.0.7:1", anywhere=True)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "é"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(StartError, match=r"^a token is one word of ASCII$"):
        shown(token, "127.0.0.1:1", anywhere=False)
