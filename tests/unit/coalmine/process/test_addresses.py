import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import StartError
from coalmine.process.addresses import (
    bound_address,
    check_free,
    check_target,
    listen_error,
    reserve,
    split_address,
)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8001", "127.0.0.1", 8001),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65_535),
        ("::1:80", "::1", 80),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, host: Any, port: Any) -> None:
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "8001",
        ":8001",
        "host",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "[]:1",
        "host:080",
        "host:\u0663",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(StartError, match="is not an address: expected host:port"):
        split_address(address)


@pytest.mark.parametrize(
    "target",
    [
        "localhost",
        "::1",
        "[::1]",
        "[::1]:9002",
        "dns:///a.internal:9002",
        "dns://8.8.8.8:53/a.internal:9002",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "ipv6:[::1]:80,[::1]:81",
        "unix:/run/x:99999",
        "a:http",
    ],
)
def test_a_target_of_any_form_of_grpcs_passes(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize(
    "target",
    ["a:65536", "[::1]:99999", "dns:///a:74538", "ipv4:127.0.0.1:1,127.0.0.1:65537", "a:080"],
)
def test_a_port_that_grpc_would_take_for_another_is_refused(target: str) -> None:
    with pytest.raises(StartError, match="is not an address: expected host:port"):
        check_target(target)


@given(st.text())
def test_no_text_does_worse_than_being_refused(text: Any) -> None:
    try:
        host, port = split_address(text)
    except StartError:
        return
    assert host
    assert 0 <= port <= 65_535


def test_a_port_that_a_process_listens_on_is_not_free_until_it_stops() -> None:
    with reserve("127.0.0.1:0", shared=False) as held:
        held.listen()
        address = bound_address(held)
        with pytest.raises(StartError, match=f"cannot listen on {address}: address already in use"):
            check_free(address)

    check_free(address)


def test_a_shared_port_can_be_had_again_by_those_who_share_it_alone() -> None:
    with reserve("127.0.0.1:0", shared=True) as held:
        held.listen()
        address = bound_address(held)
        with reserve(address, shared=True) as other:
            assert bound_address(other) == address
        with pytest.raises(StartError, match="already in use"):
            check_free(address)


def test_a_sixth_version_address_is_written_in_brackets() -> None:
    with reserve("[::1]:0", shared=False) as held:
        assert bound_address(held).startswith("[::1]:")


def test_an_address_of_another_machine_cant_be_listened_on() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:1: "):
        check_free("192.0.2.1:1")


def test_a_host_without_an_address_is_told_in_words() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert str(listen_error("nowhere:1", error)) == (
        "cannot listen on nowhere:1: name or service not known"
    )


def test_a_shared_port_is_not_free_before_anybody_listens() -> None:
    with reserve("127.0.0.1:0", shared=True) as held, pytest.raises(StartError, match="in use"):
        check_free(bound_address(held))


def test_what_a_servers_connections_left_behind_does_not_hold_up_the_next() -> None:
    with reserve("127.0.0.1:0", shared=False) as held:
        address = bound_address(held)
        held.listen()
        with socket.create_connection(held.getsockname()) as caller:
            held.accept()[0].close()
            assert caller.recv(1) == b""

    for shared in (True, False):
        reserve(address, shared=shared).close()
